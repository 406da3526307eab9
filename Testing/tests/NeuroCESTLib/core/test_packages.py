"""Optional packages: what needs a missing one is left out and said."""

from __future__ import annotations

import pytest

from NeuroCESTLib.core.packages import REQUIREMENTS, MissingPackage, left_out_without_its_package


@pytest.mark.parametrize("package", REQUIREMENTS)
def test_message_says_what_needs_the_package_and_how_to_install_it(package: str) -> None:
    missing = MissingPackage(package, "this file needs")
    assert str(missing).startswith("this file needs ")
    assert missing.requirement.split(">")[0] in str(missing)


def test_missing_package_leaves_its_part_out_with_a_warning() -> None:
    said = "protocol.seq is left out: .* 'pip install pypulseq'"
    with pytest.warns(UserWarning, match=said), left_out_without_its_package("protocol.seq"):
        raise MissingPackage("pypulseq", "writing .seq files needs the package")


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ValueError, match="disk"), left_out_without_its_package("protocol.seq"):
        raise ValueError("the disk is full")
