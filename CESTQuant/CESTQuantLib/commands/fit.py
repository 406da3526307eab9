"""``cestquant fit``: maps of an acquisition by one of the methods of the registry."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.device import DEVICES

from ..methods.base import Input, Method
from ..methods.registry import METHODS, method_named, methods_using
from .maps import add_acquisition, maps_to_folder

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser
    from NeuroCESTLib.core.progress import Progress

    from ..logic import CESTQuantLogic
    from ..scene.results import CESTQuantResult


def _default_pools() -> str:
    """Say which pools each method that uses them fits by default."""
    methods: dict[str, list[str]] = {}
    for method in METHODS.values():
        if method.pool_presets:
            methods.setdefault(method.pool_presets[0], []).append(method.name)
    return "; ".join(f"{preset} for {', '.join(names)}" for preset, names in methods.items())


_ARGUMENTS: Mapping[Input, dict[str, Any]] = {
    Input.B0: {"help": "B0 shift in ppm"},
    Input.B1: {"help": "relative B1 (1 = nominal)"},
    Input.T1: {"help": "water T1 in s"},
    Input.MODEL: {"help": "tissue model: T1 and T2 in s, rates in Hz, shifts in ppm"},
    Input.LORENTZIAN: {
        "help": "Lorentzian pools: 3T, 7T, preclinical, 3T_two_step, plof_3T or a pool description .json "
        f"(default: {_default_pools()})"
    },
    Input.ASYMMETRY_OFFSET: {"type": float, "nargs": "+", "help": "offsets of the contrast in ppm (default: 3.5)"},
    Input.POWER: {"type": float, "help": "which of several powers (uT) a contrast uses"},
    Input.NETWORK: {"help": "network file, made by train or optimize-schedule"},
    Input.CALIBRATION: {"help": "pH of an agent over the ratio of its contrasts, see File formats"},
    Input.CONFIG: {"help": "configuration of the data to simulate: a file, or a name as for train"},
}
"""Option of every input; the methods that use it are added to the help from the registry."""
_DEFAULTS: Mapping[Input, Any] = {Input.ASYMMETRY_OFFSET: [3.5]}
_MAPS = tuple(what.argument for what in (Input.B0, Input.B1, Input.T1))


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    methods = " ".join(f"{name}: {method.summary}" for name, method in METHODS.items())
    parser = commands.add_parser("fit", help="maps of a CEST acquisition", epilog=f"Methods: {methods}")
    add_acquisition(parser)
    parser.add_argument("--method", required=True, metavar="METHOD", help=", ".join(METHODS))
    for what, keywords in _ARGUMENTS.items():
        keywords = {**keywords, "metavar": what.metavar, "help": f"{keywords['help']} ({_users(what)})"}
        parser.add_argument(what.option, **keywords)
    parser.add_argument("--segmentation", metavar="SEG", help="regions for the table: .seg.nrrd or label volume")
    parser.add_argument(
        "--noise-sd",
        type=float,
        metavar="SD",
        help="noise of the normalised signal, from which fits tell noise from misfit and contrasts have standard "
        "errors (default: from repeated measurements, if any)",
    )
    parser.add_argument(
        "--posterior",
        action="store_true",
        help="also sample the posterior of the mean spectrum of every region (model fits; needs --segmentation): "
        "medians and 95 %% intervals in posterior.csv",
    )
    parser.add_argument(
        "--spatial-prior",
        action="store_true",
        help="fit all voxels together: neighbours within the mask are alike except across edges, as far as the "
        f"evidence says ({', '.join(name for name, method in METHODS.items() if method.spatial)})",
    )
    parser.add_argument(
        "--quass",
        choices=("equilibrium", "same-delay"),
        help="correct for finite saturation time and recovery (needs --t1): M0 is fully relaxed, or has the timing of "
        "the saturated measurements",
    )
    parser.add_argument(
        "--dictionary-entries",
        type=int,
        metavar="N",
        help="number of simulated spectra of the dictionary (default: as in its configuration)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: as many as torch uses)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto: CUDA if there is one")
    parser.set_defaults(command=run, check=check)


def _users(what: Input) -> str:
    """Say which methods need or use an input."""
    needing = [name for name, method in METHODS.items() if what in method.needs]
    using = [name for name, method in METHODS.items() if what in method.takes]
    users = {"needed by": needing, "used by": using}
    return "; ".join(f"{verb} {', '.join(names)}" for verb, names in users.items() if names)


def check(options: Namespace) -> None:
    """Check that the method is known and that everything is given that it needs.

    Raises:
        ValueError: The method is unknown, or something is missing.
    """
    method_named(options.method).require(_given(options))


def _given(options: Namespace) -> list[Input]:
    return [what for what in _ARGUMENTS if getattr(options, what.argument) is not None]


def run(options: Namespace) -> None:
    """Run ``cestquant fit``."""
    method, given = method_named(options.method), _given(options)
    for what, value in _DEFAULTS.items():
        if what not in given:
            setattr(options, what.argument, value)

    def compute(logic: CESTQuantLogic, nodes: dict[str, Any], progress: Progress) -> CESTQuantResult:
        return logic.fit(
            nodes["signal"],
            options.protocol,
            method=options.method,
            model=options.model,
            reference=nodes.get("reference"),
            mask=nodes.get("mask"),
            b0=nodes.get("b0"),
            b1=nodes.get("b1"),
            t1=nodes.get("t1"),
            segmentation=nodes.get("segmentation"),
            asymmetryOffset_ppm=tuple(options.asymmetry_offset),
            lorentzianPreset=options.lorentzian,
            power_uT=options.power,
            network=options.network,
            config=options.config,
            calibration=options.calibration,
            signalNormalisation=options.normalisation,
            m0OverTime=options.m0_over_time,
            fieldStrength_T=options.field_strength,
            motionCorrection=options.motion_correct,
            denoising=options.denoise,
            smoothing_ppm=options.smooth_spectra,
            quass=options.quass,
            noise_sd=options.noise_sd,
            posterior=options.posterior,
            spatialPrior=options.spatial_prior,
            dictionaryEntries=options.dictionary_entries,
            threads=options.threads,
            device=options.device,
            progress=progress,
        )

    maps_to_folder(options, "fit", compute, maps=(*_MAPS, "segmentation"), warnings=_unused(method, given, options))


def _unused(method: Method, given: list[Input], options: Namespace) -> list[str]:
    """Return a sentence for every option that the method does not use."""
    warnings = []
    for what in given:
        if not method.uses(what) and not (what is Input.T1 and options.quass):
            users = ", ".join(methods_using(what))
            warnings.append(f"the method {method.name} does not use {what.option}, which is for {users}")
    return warnings
