"""What a caller may pass to `options(dispatcher=...)` by mistake, and what comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatchers import DispatchResponses, DispatchStatus, ErrorCategory, Task, override, task

from ..timing import within  # noqa: TID252 - as for the other cases


@task(name="attack.add")
def add(x: int) -> None:
    pass


class Hostile:
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        if name in {"alias", "dispatch"}:
            raise RuntimeError(name)
        return object.__getattribute__(self, name)

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]


class Raising:
    """A dispatcher as far as can be seen, whose every method raises."""

    alias = "raising"

    def dispatch(self, request: Any) -> Any:
        raise ValueError("secret words")

    async def adispatch(self, request: Any) -> Any:
        raise ValueError("secret words")

    def dispatch_many(self, requests: Any) -> Any:
        raise ValueError("secret words")

    async def adispatch_many(self, requests: Any) -> Any:
        raise ValueError("secret words")


class Silent:
    """A dispatcher that answers nothing."""

    alias = "silent"

    def dispatch(self, request: Any) -> Any:
        return None

    async def adispatch(self, request: Any) -> Any:
        return None

    def dispatch_many(self, requests: Any) -> Any:
        return []

    async def adispatch_many(self, requests: Any) -> Any:
        return []


def _in_all_ways(dispatcher: Any, of: Task[..., Any] = add) -> list[DispatchResponses]:
    chosen = of.options(dispatcher=dispatcher)
    one, other = chosen.batch(), chosen.batch()
    one.add(1)
    other.add(1)
    single = [chosen.dispatch(1), asyncio.run(chosen.adispatch(1))]
    return [DispatchResponses(single), one.dispatch(), asyncio.run(other.adispatch())]


@pytest.mark.parametrize("value", [Hostile(), 3, 0, False, [], object(), Raising, "", "\ud800"])
def test_what_is_no_dispatcher_is_an_answer(value: Any) -> None:
    """C1: whatever is passed as dispatcher, dispatch answers `rejected`, as JSON too."""
    with override(default="inline"):
        answers = [each for found in _in_all_ways(value) for each in found]

    assert {each.status for each in answers} == {DispatchStatus.REJECTED}
    assert all(each.model_dump_json() for each in answers)


@pytest.mark.parametrize("dispatcher", [Raising(), Silent()])
def test_a_foreign_dispatcher_that_raises_is_unknown(dispatcher: Any) -> None:
    """C1: nobody can tell how far a foreign dispatcher got that raised or answered nothing."""
    answers = [each for found in _in_all_ways(dispatcher) for each in found]

    assert [each.status for each in answers] == [DispatchStatus.UNKNOWN] * 4
    assert {each.dispatcher for each in answers} == {dispatcher.alias}
    assert all(each.error and each.error.category is ErrorCategory.INTERNAL for each in answers)
    assert all(each.request is not None for each in answers)


def test_a_foreign_dispatchers_words_are_not_repeated() -> None:
    """C4: what a foreign dispatcher raised is named by its type and place."""
    error = add.options(dispatcher=Raising()).dispatch(1).error  # type: ignore[arg-type]

    assert error is not None
    assert "ValueError" in error.message
    assert "secret" not in error.message


def test_an_endless_alias_is_refused_at_once() -> None:
    """C2: no search for the nearest name of a text of megabytes."""
    with within(2.0), override(default="inline"):
        response = add.options(dispatcher="x" * 10_000_000).dispatch(1)

    assert response.status is DispatchStatus.REJECTED
    assert len(response.model_dump_json()) < 2000
