"""The worker's core: decode an envelope, find its task, run it, and say what became of it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from dispatchers._dispatch import hook_registry as hooks
from dispatchers._errors import is_a
from dispatchers._models.failures import is_end, is_interruption
from dispatchers._models.outcome import Action, Outcome
from dispatchers._runtime.cancellation import (
    TimeLimitError,
    is_cancellation,
    is_cancelled,
    limited,
)
from dispatchers._runtime.fork import generation, notice_fork
from dispatchers._runtime.heartbeat import Heartbeat
from dispatchers._runtime.log import is_said
from dispatchers._runtime.loop_thread import ended, run_coroutine
from dispatchers._runtime.to_thread import off_loop
from dispatchers._worker.decode import MissingTask, Unfit, opened
from dispatchers._worker.forked import leave
from dispatchers._worker.outcomes import after_failure, log_end, succeeded, unfit
from dispatchers._worker.run import DEFAULTS, Run, RunSettings, current, current_run
from dispatchers._worker.steps import AnyHold, hold_of, left_undone

if TYPE_CHECKING:
    from dispatchers._tasks.task import AnyTask

__all__ = [
    "Run",
    "RunSettings",
    "arun_envelope",
    "current_run",
    "killed",
    "run_envelope",
    "run_here",
]

T = TypeVar("T")

LARGE_BODY = 64 * 1024
"""Bytes from which an envelope is parsed off the event loop: a few milliseconds' work."""


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
    run = _opened(body, attempt, deliveries, settings, stopping)
    if isinstance(run, Outcome):
        return run
    # A copy of the context: what a task sets there, the next run on this thread does not see.
    return copy_context().run(_ran, run, heartbeat, settings)


def run_here(body: bytes, *, attempt: int, settings: RunSettings) -> Outcome | None:
    """`run_envelope` for a caller to whom success says enough: None is success."""
    if settings.idempotency is not None:
        return run_envelope(body, attempt=attempt, settings=settings)
    run = _opened(body, attempt, 1, settings)
    if isinstance(run, Outcome):
        return run
    # Without headers it is no step of an execution either, and has nothing to hold.
    work = _ran_for_short if run.envelope.get("headers") else _executed
    return copy_context().run(work, run, settings)


def _is_large(body: object) -> bool:
    return isinstance(body, bytes) and len(body) > LARGE_BODY


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
    given = (body, attempt, deliveries, settings, stopping)
    run = await off_loop(_opened, *given) if _is_large(body) else _opened(*given)
    if isinstance(run, Outcome):
        return run
    if not run.task.is_async:
        # A synchronous task would block the loop, and with it the worker's own connections.
        return await off_loop(_ran, run, heartbeat, settings)
    hold = hold_of(run, heartbeat, settings)
    if hold is None:
        return await _in_own_context(_aexecuted(run, settings)) or succeeded(run)
    return await _aheld(hold, run, settings)


async def _aheld(hold: AnyHold, run: Run, settings: RunSettings) -> Outcome:
    if (refused := await _off_loop(hold, hold.take)) is not None:
        return refused
    hold.begin()
    try:
        hold.outcome = await _in_own_context(_aexecuted(run, settings)) or succeeded(run)
    finally:
        await _off_loop(hold, hold.end)
    return hold.result()


async def arun_here(body: bytes, *, settings: RunSettings) -> Outcome | None:
    """`arun_envelope` for a caller that is a task of its own for this run: None is success.

    What the run sets in the context is seen nowhere else, so that it needs no further task.
    """
    run = None if _is_large(body) or settings.idempotency else _opened(body, 1, 1, settings)
    if run is None:
        return await arun_envelope(body, settings=settings)
    if isinstance(run, Outcome):
        return run
    if not run.task.is_async:
        return await off_loop(_ran, run, None, settings)
    hold = hold_of(run, None, settings)
    if hold is None:
        return await _aexecuted(run, settings)
    return await _aheld(hold, run, settings)


def killed(
    body: bytes, *, attempt: int, deliveries: int, settings: RunSettings = DEFAULTS
) -> Outcome:
    """Return the outcome of a run whose process was killed at its time limit."""
    run = _opened(body, attempt, deliveries, settings)
    if isinstance(run, Outcome):
        return run
    limit = run.until - run.started if run.until is not None else 0.0
    # The killed run took its whole time limit, in another process.
    run.started -= limit
    error = TimeLimitError("the run was killed at its time limit")
    outcome = left_undone(body, after_failure(run, error, settings))
    return copy_context().run(_ended, run, outcome, settings) or outcome


def _opened(
    body: bytes,
    attempt: int,
    deliveries: int,
    settings: RunSettings,
    stopping: Callable[[], bool] | None = None,
) -> Run | Outcome:
    """Return the run of an envelope, or the outcome of one that this worker does not run."""
    try:
        task, envelope = opened(body, deliveries, settings)
    except Unfit as exc:
        outcome = left_undone(body, unfit(exc, attempt, quiet=settings.quiet))
        if hooks.hooks.after_run and exc.request_id is not None:
            # Hooks that measure queues must see work that this worker refuses, too.
            missing: Any = MissingTask(exc.task or "")
            found = {"id": exc.request_id}
            run = Run(missing, found, body, attempt, deliveries, None)
            hooks.tell("after_run", run, outcome, shielded=not settings.quiet)
        return outcome
    interrupts = settings.interrupts
    return Run(task, envelope, body, attempt, deliveries, stopping, interrupts=interrupts)


async def _in_own_context(work: Coroutine[Any, Any, T]) -> T:
    """Run on the loop in a copy of the context: what a task sets there, the next does not see."""
    import asyncio

    loop = asyncio.get_running_loop()
    return (await loop.create_task(ended(work), context=copy_context())).result()


async def _off_loop(hold: AnyHold, step: Callable[[], T]) -> T:
    """A step of the hold, on a thread if it may wait for a store."""
    return await off_loop(step) if hold.blocks else step()


def _ran(run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> Outcome:
    hold = hold_of(run, heartbeat, settings)
    if hold is None:
        return _executed(run, settings) or succeeded(run)
    return _held(hold, run, settings)


def _ran_for_short(run: Run, settings: RunSettings) -> Outcome | None:
    hold = hold_of(run, None, settings)
    return _executed(run, settings) if hold is None else _held(hold, run, settings)


def _held(hold: AnyHold, run: Run, settings: RunSettings) -> Outcome:
    if (refused := hold.take()) is not None:
        return refused
    hold.begin()
    try:
        hold.outcome = _executed(run, settings) or succeeded(run)
    finally:
        hold.end()
    return hold.result()


def _executed(run: Run, settings: RunSettings) -> Outcome | None:
    """Run the handler in a context of its own; None is success, unless a hook wants the words."""
    current.set(run)
    outcome: Outcome | None = None
    # Taken before the handler: one that forks returns here twice, and the child must not settle.
    own = _own_generation()
    try:
        if hooks.hooks.before_run:
            hooks.tell("before_run", run, shielded=not settings.quiet)
        work = run.task.function(**run.envelope["payload"])
        run.result = work
        # Asked of the result, not of the function: a decorator may have made it async.
        if work is not None and _goes_on(run.task, work):
            run.result = run_coroutine(limited(work, run.time_left))
        elif run.is_interrupted:
            raise TimeLimitError("the run went on beyond its time limit")  # noqa: TRY301
    except BaseException as exc:  # what is raised again ends the worker, or is its caller's
        if own != generation[0]:
            leave(exc, settings)
        if not _ends_run(exc, settings):
            raise
        outcome = after_failure(run, exc, settings)
    if own != generation[0]:
        leave(None, settings)
    return _ended(run, outcome, settings)


async def _aexecuted(run: Run, settings: RunSettings) -> Outcome | None:
    current.set(run)
    outcome: Outcome | None = None
    own = _own_generation()
    try:
        if hooks.hooks.before_run:
            hooks.tell("before_run", run, shielded=not settings.quiet)
        work = run.task.function(**run.envelope["payload"])
        if _goes_on(run.task, work):
            work = await (work if run.until is None else limited(work, run.time_left))
        run.result = work
    except BaseException as exc:  # what is raised again ends the worker, or is its caller's
        if own != generation[0]:
            leave(exc, settings)
        # A cancellation of this very task is the worker's: its run is not over, and comes back.
        if is_cancelled(exc) or not _ends_run(exc, settings):
            raise
        outcome = after_failure(run, exc, settings)
    if own != generation[0]:
        leave(None, settings)
    return _ended(run, outcome, settings)


def _own_generation() -> int:
    """Return the generation of this process, which must not change in a child by and by."""
    if not generation[0]:
        notice_fork()
    return generation[0]


def _ends_run(exc: BaseException, settings: RunSettings) -> bool:
    """Tell whether an exception ends the run alone, and not what runs it.

    Where the caller waits for the run, what is no `Exception` is the caller's (C1).
    """
    if is_a(exc, Exception) or is_interruption(exc) or is_cancellation(exc):
        return True
    return not (settings.quiet or is_end(exc))


def _goes_on(task: AnyTask, work: object) -> bool:
    """Tell whether a call gave something to await: a decorator may hide, or end, what is async."""
    return inspect.iscoroutine(work) or (task.is_async and inspect.isawaitable(work))


def _ended(run: Run, outcome: Outcome | None, settings: RunSettings) -> Outcome | None:
    """Log the end of a run and tell the hooks of it."""
    logs = not settings.quiet and is_said(logging.INFO)
    if not (logs or hooks.hooks.after_run):
        return outcome
    found = outcome or succeeded(run)
    if logs and found.action is Action.DONE and found.error is None:
        log_end(found)
    if hooks.hooks.after_run:
        hooks.tell("after_run", run, found, shielded=not settings.quiet)
    return found
