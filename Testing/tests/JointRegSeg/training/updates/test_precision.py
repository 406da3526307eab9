"""The number format of a training."""

from __future__ import annotations

import warnings

import torch
from joint_training_cases import toy_config

from JointRegSegLib.network.precision import has_bfloat16_instructions
from JointRegSegLib.training.updates.precision import choose_precision


def test_bfloat16_is_doubted_only_on_a_processor_without_instructions_for_it() -> None:
    fast = has_bfloat16_instructions()
    for asked, expected in (
        ("auto", "bfloat16" if fast else "float32"),
        ("bfloat16", "bfloat16"),
        ("float32", "float32"),
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            chosen = choose_precision(toy_config({"precision": asked}).training, torch.device("cpu"))
        assert chosen.dtype == expected
        assert [str(w.message)[:54] for w in told] == (
            ["this processor has no instructions for bfloat16, in wh"] if asked == "bfloat16" and not fast else []
        )
