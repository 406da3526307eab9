"""``cestquant relaxation``: T1 and T2 maps with standard errors, for ``--t1`` and for models."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.messages.input_errors import naming
from NeuroCESTLib.core.progress import terminal_progress

from .acquisition import add_images, read_images

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser
    from NeuroCESTLib.report.record import Report

    from ..scene.relaxation import RelaxationMaps

_KINDS = ("inversion-recovery", "saturation-recovery", "variable-flip-angle", "multi-echo")


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "relaxation",
        help="T1 and T2 maps with standard errors",
        description="Map T1 (inversion or saturation recovery, flip angles) or T2 (spin echoes): DIR gets t1_s.nii.gz "
        "or t2_s.nii.gz in s, its standard error, rmse, status, report.json and report.png. A T1 map serves as --t1 of "
        "fit.",
    )
    add_images(parser)
    parser.add_argument("--kind", required=True, choices=_KINDS, help="how the images were weighted")
    parser.add_argument(
        "--times-ms",
        type=float,
        nargs="+",
        metavar="MS",
        help="inversion, recovery or repetition, or echo times in ms, one for each image",
    )
    parser.add_argument(
        "--flip-angles-deg", type=float, nargs="+", metavar="DEG", help="flip angles, one for each image"
    )
    parser.add_argument("--repetition-time-ms", type=float, metavar="MS", help="repetition time of flip angles in ms")
    parser.add_argument("--b1", metavar="MAP", help="relative B1, which scales flip angles")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for maps and report")
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``cestquant relaxation``."""
    from NeuroCESTLib.report.record import Report
    from NeuroCESTLib.scene import host
    from NeuroCESTLib.scene.writing import require_nifti_grid

    if options.reference:
        raise ValueError("relaxation maps need no M0 image: leave out --reference")
    values = _values(options)
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("cestquant relaxation", settings_of(options))
        report.require_folder(options.output)
        host.attach()
        from ..logic import CESTQuantLogic

        with report.timed("reading"):
            nodes = read_images(options, report, ("b1",))
            require_nifti_grid(nodes["signal"].GetNthDataNode(0), options.signal[0])
        with report.timed("computing"), naming({"values": _option(options)}):
            maps = CESTQuantLogic().relaxation(
                nodes["signal"],
                options.kind,
                values,
                repetitionTime_s=None if options.repetition_time_ms is None else options.repetition_time_ms / 1e3,
                b1=nodes.get("b1"),
                mask=nodes.get("mask"),
                progress=progress,
            )
        with report.timed("writing"):
            _write(options, folder, maps, report)
        report.warnings += maps.report.pop("warnings")
        report.summary |= maps.report
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _option(options: Namespace) -> str:
    """Return the option that gives the values of the kind."""
    return "--flip-angles-deg" if options.kind == "variable-flip-angle" else "--times-ms"


def _values(options: Namespace) -> list[float]:
    """Times in s, or flip angles in degrees, whichever the kind needs."""
    angles = options.kind == "variable-flip-angle"
    wanted, other = ("flip_angles_deg", "times_ms") if angles else ("times_ms", "flip_angles_deg")
    if getattr(options, wanted) is None or getattr(options, other) is not None:
        names = {"times_ms": "--times-ms", "flip_angles_deg": "--flip-angles-deg"}
        raise ValueError(f"{options.kind} needs {names[wanted]}, not {names[other]}")
    return options.flip_angles_deg if angles else [time / 1e3 for time in options.times_ms]


def _write(options: Namespace, folder: Path, maps: RelaxationMaps, report: Report) -> None:
    from NeuroCESTLib.core.packages import left_out_without_its_package
    from NeuroCESTLib.report.figures import maps_figure
    from NeuroCESTLib.report.maps import MapPanel
    from NeuroCESTLib.scene.display import robust_window
    from NeuroCESTLib.scene.volumes import volume_array
    from NeuroCESTLib.scene.writing import write_volume

    like = options.signal[0] if not options.signal[0].lower().endswith(".seq.nrrd") else None
    panels = []
    for name, node in maps.nodes.items():
        write_volume(node, folder / f"{name}.nii.gz", like=like)
        report.outputs.append(f"{name}.nii.gz")
        if name != "status":
            array = volume_array(node)
            unit = "" if name == "rmse" else "s"
            panels.append(MapPanel(name, unit, array, "inferno" if name != "t1_s" else "viridis", robust_window(array)))
    with left_out_without_its_package("report.png", report.warnings.append):
        title = f"{Path(options.signal[0]).name}: {options.kind}"
        maps_figure(folder / "report.png", maps.anatomy, panels, geometry=maps.geometry, title=title)
