"""Packages that the project can do without: what needs one is left out and said, and never costs a result."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

REQUIREMENTS = {"matplotlib": "matplotlib>=3.8", "pypulseq": "pypulseq>=1.4", "yaml": "PyYAML>=6"}
"""What to install, by the name under which a package is imported."""


class MissingPackage(ValueError):  # noqa: N818  a ValueError like any other unusable input
    """Something needs a package that is not installed.

    Args:
        package: Name under which the package is imported, one of ``REQUIREMENTS``.
        need: What needs it; the message goes on with how to install it.
    """

    def __init__(self, package: str, need: str) -> None:
        self.package = package
        self.requirement = REQUIREMENTS[package]
        name = self.requirement.partition(">")[0]
        super().__init__(f"{need} {name}, which is not installed: install it with 'pip install {name}'")


def warn_user(message: str) -> None:
    """Warn the user; the commands print the message as one line."""
    warnings.warn(message, UserWarning, stacklevel=3)


@contextlib.contextmanager
def left_out_without_its_package(what: str, note: Callable[[str], object] = warn_user) -> Iterator[None]:
    """Leave out what the block makes if a package is missing, and say so.

    Args:
        what: What the block makes, such as ``report.png``.
        note: Function that takes the sentence for the user; by default a warning.
    """
    try:
        yield
    except MissingPackage as missing:
        note(f"{what} is left out: {missing}")
