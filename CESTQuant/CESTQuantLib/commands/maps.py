"""What the commands that make maps have in common: their arguments, and an output folder of maps and reports."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.output.inputs import require_inputs_kept
from NeuroCESTLib.core.progress import Progress, part, terminal_progress

from .acquisition import add_images, read_images

if TYPE_CHECKING:
    from NeuroCESTLib.report.record import Report

    from ..logic import CESTQuantLogic
    from ..scene.results import CESTQuantResult

Compute = Callable[["CESTQuantLogic", dict[str, Any], Progress], "CESTQuantResult"]
"""How a command makes its maps: with the logic, from the nodes by the name of their argument."""


def add_acquisition(parser: ArgumentParser) -> None:
    """Add the arguments of the acquisition and of the output folder."""
    add_images(parser)
    parser.add_argument(
        "--protocol", required=True, metavar="P", help="protocol.json, offsets in ppm (text file) or .seq"
    )
    parser.add_argument(
        "--normalisation", choices=("m0", "l2", "none"), help="normalisation of the signal, instead of the protocol's"
    )
    parser.add_argument(
        "--m0-over-time",
        choices=("interpolated", "mean"),
        default="interpolated",
        help="several M0: interpolated at the time of every measurement (drift), or their mean",
    )
    parser.add_argument(
        "--field-strength",
        type=float,
        metavar="T",
        help="static field in T where the protocol is a text file; converts offsets and B0 maps in Hz",
    )
    parser.add_argument(
        "--motion-correct",
        action="store_true",
        help="bring all measurements and M0 images into the position of one of them (rigid); adds motion.png",
    )
    parser.add_argument(
        "--denoise",
        action="store_true",
        help="remove noise that neighbouring spectra do not share (MP-PCA); adds a map of the noise, noise_sd",
    )
    parser.add_argument(
        "--smooth-spectra",
        type=float,
        metavar="PPM",
        help="smooth spectra along their offsets: full width at half maximum in ppm",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for maps and report")
    parser.add_argument("--scene", action="store_true", help="also write the scene, DIR/scene.mrb")


def maps_to_folder(
    options: Namespace, command: str, compute: Compute, maps: Sequence[str] = (), warnings: Sequence[str] = ()
) -> None:
    """Read an acquisition, make maps, and write maps, table, report and scene: all of them or none.

    Args:
        options: Arguments of the command, which :func:`add_acquisition` has added.
        command: Name of the command.
        compute: How the maps are made.
        maps: Names of further arguments that give one image each.
        warnings: Sentences for the user about the arguments.
    """
    from NeuroCESTLib.core.device import choose_device
    from NeuroCESTLib.report.record import Report

    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report(f"cestquant {command}", settings_of(options), str(choose_device(_device(options))))
        report.require_folder(options.output)
        report.warnings += warnings
        _add_settings_files(options, report)
        from NeuroCESTLib.scene import host

        host.attach()
        from NeuroCESTLib.scene.writing import require_nifti_grid

        from ..logic import CESTQuantLogic

        with report.timed("reading"):
            nodes = read_images(options, report, maps)
            require_nifti_grid(nodes["signal"].GetNthDataNode(0), options.signal[0])
            require_inputs_kept(options.output, lambda place: str(place) in _sure_results(options))
        with report.timed("computing"):
            result = compute(CESTQuantLogic(), nodes, progress)
        with report.timed("writing"):
            _write(options, folder, result, report, part(progress, 0.95, 1.0))
        report.write(folder)
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)


def _sure_results(options: Namespace) -> set[str]:
    """Names of files that the command is sure to write, which are known before anything is computed."""
    from ..methods.registry import FIELD_METHODS, METHODS

    names = {quantity.pattern for quantity in (METHODS | FIELD_METHODS)[options.method].quantities}
    given = [name for name, option in (("b0_shift_ppm", "b0"), ("b1_relative", "b1")) if getattr(options, option, None)]
    found = {f"{name}.nii.gz" for name in names.difference(given)}
    further = {"roi.csv": "segmentation", "posterior.csv": "posterior", "scene.mrb": "scene"}
    return found | {"report.json"} | {name for name, option in further.items() if getattr(options, option, None)}


def _device(options: Namespace) -> str:
    return getattr(options, "device", "cpu")


def _add_settings_files(options: Namespace, report: Report) -> None:
    """Record the files that say how to quantify, and the maps that the model names."""
    from ..networks.config import config_file, files_of_config
    from ..scene.maps import NODE_MAPS, map_file
    from ..tissue.model import read_tissue_model

    for role in ("protocol", "model", "network", "config", "calibration"):
        if path := getattr(options, role, None):
            report.add_input(role, config_file(path) if role == "config" else path)
    for file in files_of_config(options.config) if getattr(options, "config", None) else ():
        report.add_input("protocol", file)
    if (getattr(options, "lorentzian", None) or "").lower().endswith(".json"):
        report.add_input("lorentzian", options.lorentzian)
    if model := getattr(options, "model", None):
        for name in read_tissue_model(model).map_names:
            if name not in NODE_MAPS:
                report.add_input("map", map_file(name, model))


def _write(options: Namespace, folder: Path, result: CESTQuantResult, report: Report, progress: Progress) -> None:
    from NeuroCESTLib.core.packages import left_out_without_its_package
    from NeuroCESTLib.scene.tables import write_table
    from NeuroCESTLib.scene.writing import write_scene, write_volume

    from ..methods.base import TIMES
    from ..scene.report import draw_motion, draw_report

    like = options.signal[0] if not options.signal[0].lower().endswith(".seq.nrrd") else None
    for count, (name, node) in enumerate(result.nodes.items()):
        progress(count / len(result.nodes), "writing files")
        write_volume(node, folder / f"{name}.nii.gz", like=like)
        report.outputs.append(f"{name}.nii.gz")
    if result.table is not None:
        write_table(result.table, folder / "roi.csv", digits=8)
    if result.posterior is not None:
        write_table(result.posterior, folder / "posterior.csv", digits=8)
    with left_out_without_its_package("report.png", report.warnings.append):
        draw_report(result, folder / "report.png", title=f"{Path(options.signal[0]).name}: {options.method}")
    if motion := result.report.get("preparation", {}).get("motion"):
        with left_out_without_its_package("motion.png", report.warnings.append):
            draw_motion(motion, folder / "motion.png", title=Path(options.signal[0]).name)
    if options.scene:
        write_scene(folder / "scene.mrb")
    summary = dict(result.report)
    report.warnings += summary.pop("warnings")
    report.add_times({name.removesuffix("_s"): summary.pop(name) for name in TIMES if name in summary})
    report.summary |= summary
