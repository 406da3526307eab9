"""Every message of a command names a file that the command was given, or an option."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command_messages import names_an_input
from schedule_configs import SCHEDULE_CONFIG
from studies import amine_model, fit, messages, spectrum_protocol, write_json
from training_configs import SCAN_CONFIG

from CESTQuantLib.batch import main as cestquant
from CESTQuantLib.formats.protocol_json import protocol_to_dict
from JointRegSegLib.batch import main as jointregseg
from NeuroCESTLib.workflow.batch import main as neurocest

PROGRAMS = {"cestquant": cestquant, "jointregseg": jointregseg, "neurocest": neurocest}
SIGNAL = "--signal {good}/signal.nii.gz --reference {good}/m0.nii.gz --output {out}"
FIT = f"fit {SIGNAL} --protocol {{good}}/protocol.json --method"
PAIR = "apply --fixed {good}/m0.nii.gz --moving {good}/m0.nii.gz --output {out}"
RELAXATION = "relaxation --signal {good}/signal.nii.gz --output {out} --kind"
REFUSALS = [
    ("cestquant", f"{FIT} magic", "--method"),
    ("cestquant", f"{FIT} mtrasym --asymmetry-offset 50", "{good}/protocol.json"),
    ("cestquant", f"{FIT} mtrasym --asymmetry-offset 0", "--asymmetry-offset"),
    ("cestquant", f"{FIT} mtrasym --power 7", "--power"),
    ("cestquant", f"{FIT} mtrasym --smooth-spectra -1", "--smooth-spectra"),
    ("cestquant", f"{FIT} lorentzian --lorentzian plof_3T", "--lorentzian"),
    ("cestquant", f"{FIT} lorentzian --lorentzian 9T", "--lorentzian"),
    ("cestquant", f"{FIT} lorentzian --noise-sd -1", "--noise-sd"),
    ("cestquant", f"{FIT} mtrasym --spatial-prior", "--method"),
    ("cestquant", f"{FIT} mtrasym --posterior", "--posterior"),
    ("cestquant", "compartments --maps {good} --bids-names _/_ --output {out}", "--bids-names"),
    ("cestquant", f"{FIT} ld --asymmetry-offset 40", "{good}/protocol.json"),
    ("cestquant", f"{FIT} mplf", "{good}/protocol.json"),
    ("cestquant", f"{FIT} quesp --t1 {{good}}/t1.nii.gz --model {{good}}/model.json", "{good}/protocol.json"),
    ("cestquant", f"{FIT} qucesop --t1 {{good}}/t1.nii.gz --model {{tmp}}/water.json", "{tmp}/water.json"),
    ("cestquant", f"{FIT} r1rho --model {{tmp}}/fixed.json", "{tmp}/fixed.json"),
    ("cestquant", f"{FIT} r1rho --model {{tmp}}/many.json", "{tmp}/many.json"),
    ("cestquant", f"{FIT} mtsat --t1 {{good}}/t1.nii.gz", "{good}/protocol.json"),
    ("cestquant", f"{FIT} dictionary --config {{tmp}}/config.json", "{tmp}/config.json"),
    ("cestquant", f"{FIT} dictionary --config {{tmp}}/config.json --dictionary-entries 0", "--dictionary-entries"),
    ("cestquant", f"fit {SIGNAL} --protocol {{tmp}}/open.json --method r1rho --model m", "file not found"),
    ("cestquant", f"fit {SIGNAL} --protocol {{tmp}}/open.json --method plof --quass equilibrium", "--t1"),
    ("cestquant", f"wasabi {SIGNAL} --protocol {{tmp}}/powers.json", "{tmp}/powers.json"),
    ("cestquant", f"wassr {SIGNAL} --protocol {{tmp}}/far.json", "{tmp}/far.json"),
    ("cestquant", f"{RELAXATION} multi-echo --times-ms {'0 ' * 21}", "--times-ms"),
    ("cestquant", f"{RELAXATION} multi-echo --times-ms {'5 ' * 21}", "--times-ms"),
    ("cestquant", f"{RELAXATION} multi-echo --times-ms 1 2", "{good}/signal.nii.gz"),
    ("cestquant", f"{RELAXATION} variable-flip-angle --flip-angles-deg {'5 ' * 21}", "--repetition-time-ms"),
    ("cestquant", "phantom --output {out} --noise -1", "--noise"),
    ("cestquant", "phantom --output {out} --regions {good}/m0.nii.gz", "{good}/m0.nii.gz"),
    ("cestquant", "phantom --output {out} --regions {good}/m0.nii.gz --voxel-size 0", "--voxel-size"),
    ("cestquant", "dataset {tmp}/targets.json --output {out}", "{tmp}/targets.json"),
    ("cestquant", "train {tmp}/few.json --output {out}.pt", "{tmp}/few.json"),
    ("cestquant", "optimize-schedule {tmp}/limits.json --output {out}", "{tmp}/limits.json"),
    ("cestquant", "simulate {tmp}/scenario.json --output {out}.csv", "{tmp}/scenario.json"),
    ("jointregseg", f"{PAIR} --weights none --time-limit -1", "--time-limit"),
    ("jointregseg", f"{PAIR} --weights none --regularisation -1", "--regularisation"),
    ("jointregseg", f"{PAIR} --weights {{good}}/m0.nii.gz", "{good}/m0.nii.gz"),
    ("jointregseg", f"{PAIR} --weights none", "{good}/m0.nii.gz"),
    ("jointregseg", "segment --images {good}/m0.nii.gz --weights none --output {out}", "--weights"),
    ("jointregseg", "train --config {tmp}/training.json --output {out}", "{tmp}/training.json"),
    ("jointregseg", "evaluate --manifest {tmp}/training.json --output {out}", "{tmp}/training.json"),
    ("neurocest", "run {tmp}/training.json --output {out}", "{tmp}/training.json"),
    ("neurocest", "summarize {good}", "{good}"),
    ("neurocest", "demo-cohort --patients 0 --output {out}", "--patients"),
    ("neurocest", "demo-cohort --seed -1 --output {out}", "--seed"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with files that can be read and are of no use to the commands above."""
    folder = tmp_path_factory.mktemp("inputs")
    protocol = protocol_to_dict(spectrum_protocol(count=21))
    pool = amine_model()["solutes"][0]
    water = {"T1_s": 1.5, "T2_s": 0.1}
    many = [pool | {"name": f"p{number}", "dw_ppm": 1.0 + number / 5} for number in range(12)]
    shift = {"b0_shift_ppm": fit(0.0, -1.0, 1.0)}
    files: dict[str, Any] = {
        "open": protocol | {"b1_uT": None},
        "powers": protocol | {"b1_uT": [1.0, 2.0] * 10 + [1.0]},
        "far": protocol | {"offsets_ppm": [20.0 + number for number in range(21)]},
        "water": {"water": water, **shift},
        "fixed": {"water": water},
        "many": {"water": water, "solutes": many},
        "config": SCAN_CONFIG,
        "targets": SCAN_CONFIG | {"targets": ["amide.k"]},
        "few": SCAN_CONFIG | {"samples": 1},
        "limits": SCHEDULE_CONFIG | {"limits": {"total_time_s": 0.001}},
        "scenario": {"water": water},
        "training": {"network": {"name": "unet"}, "training": {"epochs": -1}},
    }
    for name, values in files.items():
        write_json(values, folder / f"{name}.json")
    return folder


@pytest.mark.parametrize(("program", "words", "named"), REFUSALS, ids=[words for _, words, _ in REFUSALS])
def test_messages_name_a_file_or_an_option(
    slicer: ModuleType,
    good: Path,
    inputs: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    program: str,
    words: str,
    named: str,
) -> None:
    places = {"good": good, "tmp": inputs, "out": tmp_path / "out"}
    arguments = words.format(**places).split()
    assert PROGRAMS[program](arguments) == 2
    (line,) = messages(capfd.readouterr().err)
    assert line.startswith("error: ")
    assert names_an_input(line, arguments)
    name = named.format(**places)
    assert line.count(name) == 1, line
    assert len(line.replace(name, "")) < 300
