"""Arbitrary JSON values for readers, which must read them or explain in one sentence why not."""

from __future__ import annotations

import warnings

from hypothesis import strategies as st


def one_line(error: ValueError, name: str) -> None:
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


def reads_or_explains(read, name: str) -> None:
    """``read`` returns, or raises ValueError with one line that begins with ``name``; nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except ValueError as error:
            one_line(error, name)
