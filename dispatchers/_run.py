"""The worker's core: decode an envelope, find its task, run it, and say what became of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from . import hooks
from ._beats import Heartbeat
from ._current import DEFAULTS, Run, RunSettings, current, current_run
from ._hold import Hold
from ._judgement import after_failure, succeeded, unfit
from ._loops import is_cancellation, is_cancelled, limited, off_loop, run_coroutine
from ._opening import Unfit, opened
from ._outcome import Outcome

if TYPE_CHECKING:
    from ._task import AnyTask

__all__ = ["Run", "RunSettings", "arun_envelope", "current_run", "run_envelope", "run_here"]

T = TypeVar("T")


def run_envelope(
    body: bytes,
    *,
    attempt: int = 1,
    deliveries: int = 1,
    heartbeat: Heartbeat | None = None,
    settings: RunSettings = DEFAULTS,
    stopping: Callable[[], bool] | None = None,
) -> Outcome:
    """Run one envelope and say what became of it. Raises no `Exception`.

    An async task is run to its end on an event loop of its own; where a loop is running in this
    thread already, on another thread, for which this call waits.

    Args:
        body: The envelope.

        attempt: Which attempt this is, from 1.

        deliveries: How often this attempt was handed to a worker, this time included.

        heartbeat: Renews the transport's lease while the handler runs.

        settings: What the worker's configuration says.

        stopping: Whether the worker is shutting down; asked by `current_run().should_stop`.
    """
    try:
        task, envelope = opened(body, deliveries, settings)
    except Unfit as exc:
        return unfit(exc, attempt, quiet=settings.quiet)
    return _ran(Run(task, envelope, body, attempt, deliveries, stopping), heartbeat, settings)


def run_here(body: bytes, *, attempt: int, settings: RunSettings) -> Outcome | None:
    """`run_envelope` for a caller to whom success says enough: None is success."""
    if settings.idempotency is not None:
        return run_envelope(body, attempt=attempt, settings=settings)
    try:
        task, envelope = opened(body, 1, settings)
    except Unfit as exc:
        return unfit(exc, attempt, quiet=settings.quiet)
    return _executed(Run(task, envelope, body, attempt, 1, None), settings)


async def arun_envelope(
    body: bytes,
    *,
    attempt: int = 1,
    deliveries: int = 1,
    heartbeat: Heartbeat | None = None,
    settings: RunSettings = DEFAULTS,
    stopping: Callable[[], bool] | None = None,
) -> Outcome:
    """`run_envelope` for an event loop: async tasks run on it, others on a thread."""
    try:
        task, envelope = opened(body, deliveries, settings)
    except Unfit as exc:
        return unfit(exc, attempt, quiet=settings.quiet)
    run = Run(task, envelope, body, attempt, deliveries, stopping)
    if not task.is_async:
        return await off_loop(_ran, run, heartbeat, settings)
    if heartbeat is None and settings.idempotency is None:
        return await _aexecuted(run, settings) or succeeded(run)
    hold = Hold(run, heartbeat, settings)
    if (refused := await _off_loop(hold, hold.take)) is not None:
        return refused
    hold.begin()
    try:
        hold.outcome = await _aexecuted(run, settings) or succeeded(run)
    finally:
        await _off_loop(hold, hold.end)
    return hold.result()


async def _off_loop(hold: Hold, step: Callable[[], T]) -> T:
    """A step of the hold, on a thread if it may wait for a store."""
    return await off_loop(step) if hold.blocks else step()


def _ran(run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> Outcome:
    if heartbeat is None and settings.idempotency is None:
        return _executed(run, settings) or succeeded(run)
    return _held(run, heartbeat, settings)


def _held(run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> Outcome:
    hold = Hold(run, heartbeat, settings)
    if (refused := hold.take()) is not None:
        return refused
    hold.begin()
    try:
        hold.outcome = _executed(run, settings) or succeeded(run)
    finally:
        hold.end()
    return hold.result()


def _executed(run: Run, settings: RunSettings) -> Outcome | None:
    """Run the handler; None is success, for which most callers need no more words."""
    token = current.set(run)
    task = run.task
    outcome: Outcome | None = None
    try:
        try:
            if hooks.hooks.before_run:
                hooks.tell("before_run", run)
            work = task.function(**run.envelope["payload"])
            if work is not None and _goes_on(task, work):
                run_coroutine(limited(work, run.time_left))
        except BaseException as exc:  # what is raised again is neither
            if not (isinstance(exc, Exception) or is_cancellation(exc)):
                raise
            outcome = after_failure(run, exc, settings)
        return _told(run, outcome) if hooks.hooks.after_run else outcome
    finally:
        current.reset(token)


async def _aexecuted(run: Run, settings: RunSettings) -> Outcome | None:
    token = current.set(run)
    outcome: Outcome | None = None
    try:
        try:
            if hooks.hooks.before_run:
                hooks.tell("before_run", run)
            work = run.task.function(**run.envelope["payload"])
            if _goes_on(run.task, work):
                await (work if run.until is None else limited(work, run.time_left))
        except BaseException as exc:  # what is raised again is neither
            if not (isinstance(exc, Exception) or (is_cancellation(exc) and not is_cancelled())):
                raise
            outcome = after_failure(run, exc, settings)
        return _told(run, outcome) if hooks.hooks.after_run else outcome
    finally:
        current.reset(token)


def _goes_on(task: AnyTask, work: object) -> bool:
    """Whether a call gave something to await: a decorator may hide, or end, what is async."""
    return inspect.iscoroutine(work) or (task.is_async and inspect.isawaitable(work))


def _told(run: Run, outcome: Outcome | None) -> Outcome:
    found = outcome or succeeded(run)
    hooks.tell("after_run", run, found)
    return found
