"""``cestquant phantom``: the sample data as files, to try the other commands on."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import terminal_progress

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "phantom", help="simulated brain with glioma: signal, M0, fields, T1, regions, protocol, model"
    )
    parser.add_argument("--noise", type=float, default=0.002, help="noise SD relative to M0 of white matter")
    parser.add_argument("--seed", type=int, default=1, help="seed of the noise and of the biological spread")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the files")
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``cestquant phantom``."""
    from NeuroCESTLib.core.whole_files import write_text
    from NeuroCESTLib.report.record import Report
    from NeuroCESTLib.scene import host
    from NeuroCESTLib.scene.writing import write_node

    from ..formats.protocol_json import protocol_to_dict
    from ..logic import CESTQuantLogic
    from ..tissue.phantom import phantom_model, phantom_protocol

    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("cestquant phantom", settings_of(options))
        host.attach()
        nodes = CESTQuantLogic().addPhantom(seed=options.seed, noise_sd=options.noise, progress=progress)
        endings = {"signal": ".seq.nrrd", "segmentation": ".seg.nrrd"}
        for name, node in nodes.items():
            write_node(node, folder / f"{name}{endings.get(name, '.nii.gz')}")
        write_text(json.dumps(protocol_to_dict(phantom_protocol()), indent=1), folder / "protocol.json")
        write_text(json.dumps(phantom_model(), indent=1), folder / "model.json")
        report.write(folder)
