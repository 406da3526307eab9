"""Messages about inputs open with the file or node that they are about, and name it once."""

from __future__ import annotations

import pickle
import re

import pytest

from NeuroCESTLib.batch.frame import run
from NeuroCESTLib.core.messages.input_errors import InputError, naming

NAMES = {"protocol": "'p.json'", "model": "", "signal": "'mz_1.nii.gz' and 3 more"}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("protocol", "b1_uT is null"), "'p.json': b1_uT is null"),
        (InputError("protocol", "'p.json' has 2 powers"), "'p.json' has 2 powers"),
        (InputError("protocol", "too few offsets (--power)"), "'p.json': too few offsets (--power)"),
        (InputError("model", "no fitted value"), "'mz_1.nii.gz' and 3 more: no fitted value"),
        (InputError("noise-sd", "must be positive"), "must be positive"),
        (ValueError("the signal is empty"), "'mz_1.nii.gz' and 3 more: the signal is empty"),
        (ValueError("mz_1.nii.gz is empty"), "mz_1.nii.gz is empty"),
        (ValueError("p.json: damaged"), "p.json: damaged"),
        (ValueError("cannot write 'full/out': no permission"), "cannot write 'full/out': no permission"),
        (ValueError("give a T1 map (--t1)"), "give a T1 map (--t1)"),
    ],
)
def test_the_name_of_the_input_stands_in_front_and_once(error: ValueError, line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"), naming(NAMES, NAMES["signal"]):
        raise error


@pytest.mark.parametrize(("role", "name"), [("protocol", "'p.json'"), ("rim", "--rim")])
def test_a_role_without_a_name_is_named_further_up_or_as_an_option(
    role: str, name: str, capsys: pytest.CaptureFixture
) -> None:
    def main(arguments: object) -> None:
        with naming({"protocol": "'p.json'"}), naming({"model": "'m.json'"}, "'mz.nii.gz'"):
            raise InputError(role, "is not usable")

    assert run(main, []) == 2
    assert capsys.readouterr().err == f"error: {name}: is not usable\n"


def test_other_errors_pass_and_errors_travel_between_processes() -> None:
    with pytest.raises(KeyError), naming(NAMES):
        raise KeyError("protocol")
    copied = pickle.loads(pickle.dumps(InputError("protocol", "is not usable")))
    assert (copied.role, str(copied)) == ("protocol", "is not usable")
