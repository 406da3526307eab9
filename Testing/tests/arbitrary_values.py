"""Arbitrary JSON values for readers, which must either read them or say in one sentence why they cannot."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SEEDED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""Settings of property tests: the same draws in every run, and no limit of time."""


def one_line(error: ValueError, name: str) -> None:
    """Check that a message is one line that begins with the name of the file and says something."""
    message = str(error)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert len(message) > len(name) + 10


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def reads_or_explains(read: Callable[[], object], name: str) -> None:
    """Check that ``read`` returns, or raises ValueError with one line that begins with ``name``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except ValueError as error:
            one_line(error, name)
