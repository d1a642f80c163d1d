"""An envelope with a mistake in every element costs little more than one without."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchers import DispatchRequest, Reason, run_envelope, task

MANY = 40_000
"""Looking for each of them from the start would take many minutes."""


@task(name="mistakes.many")
def many(numbers: list[int], by_name: dict[str, int]) -> None:
    """Never runs here."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"numbers": ["a"] * MANY, "by_name": {}}, "numbers["),
        ({"numbers": [], "by_name": {f"k{n}": "a" for n in range(MANY)}}, "by_name.k"),
        ({"numbers": [], "by_name": {}, **{f"k{n}": 1 for n in range(MANY)}}, "k"),
    ],
    ids=["list", "dict", "arguments"],
)
def test_a_mistake_in_every_element_is_told_in_time(payload: dict[str, Any], path: str):
    """One message of 1 MiB must not hold up a worker for minutes."""
    body = DispatchRequest(task="mistakes.many", payload=payload).model_dump_json(
        exclude={"deadline", "deduplicate"}
    )

    outcome = run_envelope(body.encode())

    assert outcome.reason is Reason.INVALID_ARGUMENTS
    assert outcome.error is not None
    assert f"argument '{path}" in outcome.error.message
