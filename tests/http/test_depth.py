"""How deep a JSON text is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatchers.http._json_depth import is_deeper

VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=30,
)


def depth(value) -> int:
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)
    return 0


@given(VALUES, st.booleans())
def test_it_counts_as_a_parser_would(value, escaped):
    """Marks in texts and escaped quotes are no levels."""
    text = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")

    found = depth(value)

    assert not is_deeper(text, found)
    assert found == 0 or is_deeper(text, found - 1)


@given(st.binary())
def test_it_takes_any_bytes(text):
    """What is no JSON is said by the parser, not by this."""
    assert is_deeper(text, 3) in (True, False)


@pytest.mark.parametrize("filler", [b'\\"', b'"', b"\\", b'"\\'])
def test_it_is_quick_about_a_text_that_never_ends(filler):
    """Each byte is looked at once; twice over would take hours here, and the test its limit."""
    text = b"[]" * 100 + b'"' + filler * 1_000_000

    assert not is_deeper(text, 1)
