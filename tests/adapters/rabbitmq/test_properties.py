"""The frame before a message's body, byte for byte as pika writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec
from pika.exceptions import ShortStringTooLong

from dispatchers.rabbitmq._properties import content_header

TEXTS = (
    *("content_type", "content_encoding", "correlation_id", "reply_to", "expiration"),
    *("message_id", "type", "user_id", "app_id", "cluster_id"),
)
names = st.text(max_size=40)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text()
    | st.binary()
    | st.datetimes(datetime(1970, 1, 2), timezones=st.just(UTC))
    | st.decimals(-1000, 1000, places=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.dictionaries(names, values),
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255),
        "timestamp": st.integers(0, 2**63),
        **dict.fromkeys(TEXTS, names),
    },
)


@given(st.integers(0, 2**40), properties)
def test_any_properties_are_written_as_pika_writes_them(size: int, given: dict[str, Any]) -> None:
    """C5: what a worker reads does not depend on who wrote it."""
    theirs = frame.Header(1, size, spec.BasicProperties(**given)).marshal()

    assert content_header(size, given) == theirs


def test_what_pika_cannot_write_is_text() -> None:
    """C5: a float, and a name that is a number."""
    ours = content_header(0, {"headers": {1: 0.5, "a": Decimal("1.5"), "b": (0.5, {2: 0.5})}})

    same = {"1": "0.5", "a": Decimal("1.5"), "b": ["0.5", {"2": "0.5"}]}
    assert ours == frame.Header(1, 0, spec.BasicProperties(headers=same)).marshal()


@pytest.mark.parametrize("name", ["message_id", "headers"])
def test_a_text_that_is_too_long_is_refused(name: str) -> None:
    """C4: AMQP has 255 bytes for it."""
    value: Any = {"n" * 256: 1} if name == "headers" else "n" * 256

    with pytest.raises(ShortStringTooLong):
        content_header(0, {name: value})


def test_an_unknown_property_is_refused() -> None:
    """C4: as by pika."""
    with pytest.raises(TypeError, match="no property 'header'"):
        content_header(0, {"header": {}})
