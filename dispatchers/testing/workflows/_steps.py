"""Answers that a test gives in place of tasks."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from dispatchers._journal.failure import Failure
from dispatchers._journal.loading import journal
from dispatchers._journal.values import Answer, EntryKind
from dispatchers._runtime import clock
from dispatchers._tasks.task import AnyTask, catalogue
from dispatchers._worker.run import current_run
from dispatchers._worker.steps import PARENT, Step
from dispatchers._worker.waking import woken

__all__ = ["Answers"]

TIMEOUT = 5.0


@dataclass
class _Planned:
    function: Callable[[], Any]
    left: float
    """Runs for which it stands in, infinity included."""


class Answers:
    """Answers by task, each used as often as it was given, in order."""

    def __init__(self) -> None:
        self._planned: defaultdict[str, deque[_Planned]] = defaultdict(deque)

    def plan(self, task: AnyTask, function: Callable[[], Any], times: int | None) -> None:
        """Let a function stand in for the next runs of a task."""
        _ = task.results  # of the task's own function
        left = float("inf") if times is None else times
        if left > 0:
            self._planned[task.name].append(_Planned(function, left))

    @contextmanager
    def standing_in(self, name: str) -> Generator[None]:
        """Have what is planned stand in for a task, for one run."""
        task = catalogue.find(name)
        function = None if task is None else self._next(task.name)
        if task is None or function is None:
            yield
            return
        before = task.function, task.implemented
        task.function, task.implemented = _stand_in(task, function), True
        try:
            yield
        finally:
            task.function, task.implemented = before

    def _next(self, name: str) -> Callable[[], Any] | None:
        planned = self._planned[name]
        if not planned:
            return None
        planned[0].left -= 1
        return planned[0].function if planned[0].left else planned.popleft().function


def _ignoring(function: Callable[[], Any], /, **_: object) -> Any:
    return function()


def _stand_in(task: AnyTask, function: Callable[[], Any]) -> Callable[..., Any]:
    if task.is_workflow:
        return partial(_ignoring, partial(_answer_parent, task, function))
    if not task.is_async:
        return partial(_ignoring, function)

    async def standing_in(**_: object) -> Any:
        return function()

    return standing_in


def _answer_parent(task: AnyTask, function: Callable[[], Any]) -> None:
    """Answer for a child that does not begin."""
    child = Step.named(current_run().request.headers, PARENT)
    if child is None:
        return
    try:
        answer = Answer(EntryKind.DONE, task.results.encode(function()), clock.time())
    except Exception as exc:  # noqa: BLE001 - the failure that was asked for
        answer = Answer(EntryKind.FAILED, Failure.of(exc).encode(), clock.time())
    answer = answer._replace(source=current_run().request.id)
    answered = journal().answer(child.execution, child.number, answer, timeout=TIMEOUT)
    woken(answered.wake)
