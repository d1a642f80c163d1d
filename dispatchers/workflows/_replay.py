"""The code of one execution, as far as its entries have been fed to it."""

from __future__ import annotations

import atexit
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from time import monotonic
from typing import Any

from pydantic_core import to_json

from dispatchers._errors import readable
from dispatchers._journal.failure import Failure, for_people
from dispatchers._journal.values import Command, Entry, EntryKind
from dispatchers._models.request import DispatchRequest
from dispatchers._payload.errors import PayloadError
from dispatchers._runtime.log import say
from dispatchers._tasks.recorder import recording
from dispatchers.workflows._commands import Commands
from dispatchers.workflows._end import End, end_of
from dispatchers.workflows._futures import DurableTask, StepFuture
from dispatchers.workflows._local import LocalCall
from dispatchers.workflows._unwinding import unwind


class Replay:
    """The code of one execution, run on by its entries: first in, first out, one at a time.

    A call runs until the code waits. It blocks its thread meanwhile, and may be made in any thread.

    Args:
        code: Makes the coroutine.

        execution: The id.

        first: The number before the first command.

        started: When it began, in seconds since the epoch.

        recorded: The entries of the commands that the journal knows, by number.

        encode: Encodes the result.

        again: Encodes the arguments of a `restart`; by default a JSON object of its keywords.

        generation: Of the entries: new commands are of it.
    """

    def __init__(
        self,
        code: Callable[[], Coroutine[Any, Any, Any]],
        *,
        execution: str,
        first: int,
        started: float,
        recorded: Mapping[int, Entry],
        encode: Callable[[Any], bytes] = to_json,
        again: Callable[..., bytes] | None = None,
        generation: int = 0,
    ) -> None:
        self._encode = encode
        self._commands = commands = Commands(
            execution, first, started, recorded, again or _as_json, generation
        )
        self._loop = commands.loop
        self.locals: deque[LocalCall] = commands.locals
        """The local steps that are not answered."""
        self._cancelled_for: str | None = None
        self.end: End | None = None
        """Set once the code has ended."""
        self.told = 0
        """The place of the last entry that the code was told."""
        self._feeds = {
            EntryKind.DONE: self._answer,
            EntryKind.FAILED: self._answer,
            EntryKind.FIRED: self._fire,
            EntryKind.SIGNAL: self._signal,
            EntryKind.CANCEL: self._cancel,
        }
        # Not the worker's: what its context holds is of this turn only.
        self._context = Context()
        self._context.run(recording.set, commands)
        _keep(self)
        self._main: DurableTask[Any]
        try:
            self._run(self._begin, code)
        except BaseException:
            self.close()
            raise

    # Asked by the turn.

    def feed(self, *entries: Entry) -> None:
        """Tell the code of answers, timers, signals and its cancellation, in their order.

        Between two of them it runs until it waits.
        """
        self._run(self._feed_each, entries)

    def _feed_each(self, entries: tuple[Entry, ...]) -> None:
        loop, feeds = self._loop, self._feeds
        for entry in entries:
            if loop.halted or self._main.done():
                return
            self.told, loop.now = entry.seq, max(loop.now, entry.at)
            feeds[entry.kind](entry)
            loop.run_ready()
            self._check_awaited()

    def know(self, entry: Entry) -> None:
        """Tell of a command that is recorded, before the entries that lead the code to it.

        The same code has asked for it in another process, from what it was fed there.
        """
        self._commands.know(entry)

    def take_commands(self) -> list[Command]:
        """Return the commands since the last call: once all entries are fed.

        `mismatch` is complete afterwards: a recorded command may have been missing until now.
        """
        commands = self._commands
        if self.mismatch is None and (missing := commands.missing):
            self._halt(f"{missing}, the code {self._where()} without it")
        if self.mismatch is not None:
            return []
        taken, commands.new = commands.new, []
        return taken

    def take_requests(self) -> dict[int, DispatchRequest]:
        """Return what the commands since the last call hand over, by number."""
        commands = self._commands
        taken, commands.requests = commands.requests, {}
        return taken

    def take_dropped(self) -> dict[int, EntryKind]:
        """Return the steps and children that were given up since the last call, by number."""
        commands = self._commands
        taken, commands.dropped = commands.dropped, {}
        return taken

    @property
    def state(self) -> bytes | None:
        """State published since the last call of `take_state`."""
        return self._commands.state

    def take_state(self) -> bytes | None:
        """Return the state published since the last call."""
        state, self._commands.state = self._commands.state, None
        return state

    @property
    def wake_at(self) -> float | None:
        """The instant of the earliest timer, in seconds since the epoch."""
        timers = self._commands.timers
        if not timers:
            return None
        return min((t.when() for n, t in timers.items() if n > 0), default=None)

    @property
    def unreceived(self) -> list[int]:
        """Places of the signals that the code was told of and has not received."""
        return self._commands.signals.unreceived

    @property
    def mismatch(self) -> str | None:
        """Why the code cannot go on, for people; nothing of this replay may be committed."""
        return self._commands.mismatch

    @property
    def waits_for(self) -> str:
        """Name the awaited, for people: `step shop.charge (3)`, `signal approval` ..."""
        found = self._commands.awaited
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return ", ".join(found[:SHOWN]) + more

    def close(self) -> None:
        """Unwind the code without effect, unless it has ended."""
        _parked.discard(self)
        unwind(self._loop, self._context)

    # Running.

    def _begin(self, code: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._main = self._loop.create_task(
            self._until_end(code), name="main", context=self._context
        )
        self._loop.run_ready()
        self._check_awaited()

    async def _until_end(self, code: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        try:
            return await code()
        except BaseException as exc:
            # The loop's task would never be done with one that cannot be looked at.
            if (found := readable(exc)) is exc:
                raise
            raise found from None
        finally:
            self._loop.ended = True

    def _run(self, callback: Callable[..., object], *args: object) -> None:
        if self._loop.halted:
            return
        began = monotonic()
        self._loop.run(callback, *args)
        if self._loop.interruption is not None:
            raise self._loop.interruption
        if (seconds := monotonic() - began) > SLOW:
            say(logging.WARNING, BLOCKS, self._commands.execution, seconds)
        if self.mismatch is None and self._main.done():
            self._finish()

    def _check_awaited(self) -> None:
        if not (self._main.done() or self._loop.halted or self._commands.awaited_any):
            self._halt(f"the workflow waits for nothing that could come: {NOTHING_COMES}")

    def _halt(self, why: str) -> None:
        self.end = None
        self._commands.halt(why)

    def _where(self) -> str:
        return "ended" if self._main.done() else f"waits for {self.waits_for}"

    def _finish(self) -> None:
        if missing := self._commands.missing:
            self._halt(f"{missing}, the code ended without it")
        else:
            self.end = end_of(self._main, self._encode, self._cancelled_for)
        self.locals.clear()
        self.close()

    # What it is fed.

    def _answer(self, entry: Entry) -> None:
        number = entry.number or 0
        self._commands.dropped.pop(number, None)
        future = self._commands.answered(number)
        if future is not None:
            self._settle(future, entry)
        elif number > self._commands.last:
            self._halt(
                f"command {number}: an answer to it is recorded, the code has asked for "
                f"{self._commands.last} only"
            )

    def _settle(self, future: StepFuture[Any], entry: Entry) -> None:
        try:
            if entry.kind is EntryKind.DONE:
                future.set_result(future.results.decode(entry.body or b"null"))
            else:
                failure = Failure.decode(entry.body or b"{}")
                future.set_exception(failure.error(f"{future.name} ({future.number})"))
        except PayloadError as exc:
            self._halt(f"{future}: the recorded result does not fit its annotation: {exc}")

    def _fire(self, entry: Entry) -> None:
        number = entry.number or 0
        timer = self._commands.timers.pop(number, None)
        if timer is not None:
            self._loop.fire(timer)
        elif number > self._commands.last:
            self._halt(f"command {number}: a timer has fired that the code has not asked for")

    def _signal(self, entry: Entry) -> None:
        self._commands.signals.put(entry.name or "", entry.body or b"null", entry.seq)

    def _cancel(self, entry: Entry) -> None:
        self._cancelled_for = for_people(entry.name)
        self._main.cancel(self._cancelled_for or None)


def _as_json(**arguments: object) -> bytes:
    return to_json(arguments)


NOTHING_COMES = "no step, timer or signal is awaited, so nothing will ever go on; await one of them"

SLOW = 5.0
"""Seconds in one call after which it is worth a warning."""

BLOCKS = (
    "execution %s kept its worker busy for %.1f s at once: what blocks belongs into a step, or "
    "into `local(function, ...)`; a long history into `restart(...)`"
)

SHOWN = 3
"""Awaited commands that are named."""

_parked: set[Replay] = set()
"""All that are not closed: what is parked must be unwound, not collected."""


def _keep(replay: Replay) -> None:
    if not _parked:
        atexit.unregister(_close_all)  # a list that was emptied meanwhile
        atexit.register(_close_all)
    _parked.add(replay)


def _close_all() -> None:
    """Unwind all before the interpreter tears them down piece by piece."""
    for replay in list(_parked):
        replay.close()
