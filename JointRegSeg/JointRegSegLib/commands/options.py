"""Options that several subcommands have."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from NeuroCESTLib.core.device import DEVICES
from NeuroCESTLib.report.record import Report
from NeuroCESTLib.scene.image_files import existing_file

from ..images.label_conventions import choices
from ..inference.settings import NO_NETWORK
from ..network.shipped import SHIPPED, in_words, weights_path
from ..registration.refinement_settings import RefinementSettings
from ..registration.similarity import SIMILARITIES


def add_refinement(parser: ArgumentParser) -> None:
    """Add the options of the refinement and of the averaging over mirrored images."""
    parser.add_argument(
        "--refine",
        type=int,
        metavar="N",
        help="iterations of the refinement on each level, 0 for none (default: a number for each level)",
    )
    measures = "; ".join(f"{name}: {measure.title}, for {measure.suits}" for name, measure in SIMILARITIES.items())
    parser.add_argument(
        "--similarity",
        choices=tuple(SIMILARITIES),
        metavar="NAME",
        help=f"similarity of the images that the refinement maximises (default: {RefinementSettings().similarity}). "
        f"{measures}",
    )
    add_flips(parser)


def add_flips(parser: ArgumentParser) -> None:
    """Add the option that switches the averaging over variants of the images off."""
    parser.add_argument(
        "--no-flips",
        action="store_true",
        help="segment the images once, not also mirrored and with fewer of them: faster, but less accurate and without "
        "intervals of the volumes",
    )


def add_weights(parser: ArgumentParser, without: bool) -> None:
    """Add the option of the network.

    Args:
        parser: Parser of a command.
        without: Whether the command can do without a network.
    """
    none = f", or '{NO_NETWORK}' to register without segmenting" if without else ""
    parser.add_argument(
        "--weights",
        metavar="W",
        help=f"weights file (.pt), or weights of the package: {in_words(SHIPPED)}{none} (default: neurocest)",
    )


def check_weights(options: Namespace) -> None:
    """Check that the weights that were given are there.

    Raises:
        ValueError: They are neither a file nor weights of the package.
    """
    if options.weights not in (None, NO_NETWORK):
        existing_file(weights_path(options.weights))


def record_weights(options: Namespace, report: Report) -> None:
    """Record the file of the weights that were given in a report.

    Raises:
        ValueError: They are neither a file nor weights of the package.
    """
    if options.weights not in (None, NO_NETWORK):
        report.add_input("weights", weights_path(options.weights))


def add_coregistration(parser: ArgumentParser) -> None:
    """Add the option that switches the alignment within a visit off."""
    parser.add_argument(
        "--no-coregistration",
        action="store_true",
        help="trust the positions of the images of a visit (default: images that lie 1.5 mm or more from the first "
        "one, 0.75 mm if their voxels differ, are aligned with it rigidly; where the first one reaches over less of "
        "the brain than another, they are aligned with the first that reaches over nearly as much as any other)",
    )


def check_refinement(options: Namespace) -> None:
    """Check the values of the options of the refinement.

    Raises:
        ValueError: The number of iterations is negative.
    """
    if options.refine is not None and options.refine < 0:
        raise ValueError(f"--refine is {options.refine}; give a number of iterations, 0 for none")


def unused_refinement(options: Namespace) -> list[str]:
    """Return a sentence where options of the refinement are given, but there is none."""
    names = ("similarity", "regulariser", "regularisation", "time_limit")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name, None) is not None]
    if options.refine != 0 or not given:
        return []
    return [f"{', '.join(given)} {'change' if len(given) > 1 else 'changes'} nothing with --refine 0"]


def add_labels(parser: ArgumentParser, where: str) -> None:
    """Add the option of the convention of label files.

    Args:
        parser: Parser of the command.
        where: Which label files it concerns, for the help.
    """
    parser.add_argument(
        "--labels",
        metavar="CONVENTION",
        help=f"meaning of the numbers in label files {where} (default: recognized where it is certain, else refused). "
        f"{choices()}",
    )


def add_device(parser: ArgumentParser) -> None:
    """Add the option of the device."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto: CUDA if there is one (default)")
