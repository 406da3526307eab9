"""``cestquant wasabi`` and ``wassr``: field maps from separate acquisitions."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from ..methods.registry import FIELD_METHODS
from .maps import add_acquisition, maps_to_folder

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser
    from NeuroCESTLib.core.progress import Progress

    from ..logic import CESTQuantLogic
    from ..scene.results import CESTQuantResult


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add a command for each field-mapping method to the parser."""
    for name, method in FIELD_METHODS.items():
        parser = commands.add_parser(name, help=f"{method.title}: {method.summary}")
        add_acquisition(parser)
        parser.add_argument(
            "--b0-limits",
            type=float,
            nargs=2,
            metavar=("LOW", "HIGH"),
            help="lowest and highest B0 shift in ppm (default: the range of the offsets)",
        )
        if name == "wasabi":
            parser.add_argument(
                "--b1-limits",
                type=float,
                nargs=2,
                metavar=("LOW", "HIGH"),
                help="lowest and highest relative B1 (default: 0.3 1.8)",
            )
        parser.set_defaults(command=run, method=name)


def run(options: Namespace) -> None:
    """Run ``cestquant wasabi`` or ``wassr``."""

    def compute(logic: CESTQuantLogic, nodes: dict[str, Any], progress: Progress) -> CESTQuantResult:
        return logic.fieldMaps(
            nodes["signal"],
            options.protocol,
            method=options.method,
            reference=nodes.get("reference"),
            mask=nodes.get("mask"),
            signalNormalisation=options.normalisation,
            m0OverTime=options.m0_over_time,
            fieldStrength_T=options.field_strength,
            motionCorrection=options.motion_correct,
            denoising=options.denoise,
            smoothing_ppm=options.smooth_spectra,
            b0Limits_ppm=_limits(options.b0_limits),
            b1Limits=_limits(getattr(options, "b1_limits", None)),
            progress=progress,
        )

    maps_to_folder(options, options.method, compute)


def _limits(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
