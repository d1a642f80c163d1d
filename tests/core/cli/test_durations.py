"""Spans of time on command lines."""

from __future__ import annotations

import argparse
from datetime import timedelta

import pytest

from dispatchers.cli._durations import duration, seconds, spoken


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("2d", 172800),
        ("1w", 604800),
        ("0.5", 0.5),
        ("0", 0),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_parts_with_units(text: str, expected: float) -> None:
    """A duration is a number of seconds, or parts with their units."""
    assert seconds(text) == expected
    assert duration(text) == timedelta(seconds=expected)


@pytest.mark.parametrize("text", ["", "5x", "m", "-5m", "5 m", "1h-3m", "inf", "nan", "1e3", "٣s"])
def test_what_is_no_duration_is_refused_with_the_way_to_write_one(text: str) -> None:
    """What is no duration is refused with the way to write one."""
    with pytest.raises(argparse.ArgumentTypeError, match="write 90s, 5m, 1h30m"):
        seconds(text)


def test_a_duration_that_no_calendar_holds_is_refused() -> None:
    """A duration that no calendar holds is refused, not an OverflowError."""
    with pytest.raises(argparse.ArgumentTypeError, match="calendar"):
        duration("9" * 30 + "w")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 s"),
        (0.25, "250 ms"),
        (2.25, "2.25 s"),
        (90, "1 min 30 s"),
        (7200, "2 h"),
        (273600, "3 d 4 h"),
        (timedelta(minutes=5), "5 min"),
    ],
)
def test_a_span_is_said_in_its_two_largest_units(value: float | timedelta, expected: str) -> None:
    """A span is said in the two largest units that say something."""
    assert spoken(value) == expected
