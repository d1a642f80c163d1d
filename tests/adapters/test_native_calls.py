"""Native work of Celery, Dramatiq and RQ: one rule for what never reaches a dispatcher."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dispatchers import DispatchRequest, DispatchResponse, hooks, override
from dispatchers.backends.null import NullDispatcher
from dispatchers.native import arguments, is_native


@pytest.fixture(params=["celery", "dramatiq", "rq"])
def native(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(f"dispatchers_{request.param}").native


@pytest.fixture
def told() -> Iterator[list[DispatchResponse]]:
    """What the hooks are told."""
    found: list[DispatchResponse] = []
    hooks.after_dispatch(found.append)
    yield found
    hooks.remove(found.append)


@pytest.mark.parametrize(
    ("options", "argument", "category"),
    [
        ({}, object(), "invalid"),
        ({"priority": "high"}, 1, "invalid"),
        ({"dispatcher": "unheard_of"}, 1, "configuration"),
        ({"max_attempts": 3}, 1, "unsupported"),
        ({"context": {"a": 1}}, 1, "unsupported"),
    ],
)
def test_a_refusal_is_logged_and_told(
    native: Any,
    told: list[DispatchResponse],
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    argument: object,
    category: str,
) -> None:
    """C4: refused before any dispatcher: one record, hooks, an id and the exception."""
    call = native("shop.mail", **options)

    with override(default=NullDispatcher()), caplog.at_level(logging.ERROR, "dispatchers"):
        answers = [call.dispatch(argument), asyncio.run(call.adispatch(argument))]

    assert told == answers
    assert len(caplog.records) == len(answers)
    assert "shop.mail" in caplog.text or category == "configuration"
    for answer in answers:
        assert answer.error is not None
        assert (answer.status.value, answer.error.category.value) == ("rejected", category)
        assert answer.request_id
        assert answer.exception is not None


def test_an_unknown_option_names_the_nearest(native: Any) -> None:
    """C4: a mistyped option is told together with the one that was meant."""
    with override(default=NullDispatcher()):
        response = native("shop.mail", qeue="mail").dispatch(1)

    assert response.error is not None
    assert "'queue'" in response.error.message
    assert "pydantic" not in response.error.message


def test_a_hook_that_replaces_the_headers_leaves_it_native(native: Any) -> None:
    """A request stays one for the backend's own work, whatever hooks make of its headers."""

    @hooks.before_dispatch
    def stamp(request: DispatchRequest) -> DispatchRequest:
        return request.replace(headers={"tenant": "acme"})

    try:
        with override(default=NullDispatcher()):
            response = native("shop.mail").dispatch(1, text="x")
    finally:
        hooks.remove(stamp)

    assert response.request is not None
    assert is_native(response.request)
    assert arguments(response.request) == ([1], {"text": "x"})
