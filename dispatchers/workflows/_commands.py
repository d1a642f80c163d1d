"""Commands of a workflow's code: numbered, and compared with those that are recorded."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from random import Random
from sys import exc_info
from typing import Any

from dispatchers._errors import NotDurableError
from dispatchers._journal.rules import request_id
from dispatchers._journal.values import Command, Entry, EntryKind
from dispatchers._models.envelope import decode, encode
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers._runtime.log import say
from dispatchers._tasks.definition import TaskDefinition
from dispatchers._tasks.recorder import Outgoing
from dispatchers._worker.steps import PARENT, STEP
from dispatchers.workflows import _words
from dispatchers.workflows._futures import StepFuture, Unwound
from dispatchers.workflows._guarded import StepCoroutine
from dispatchers.workflows._handles import Timer
from dispatchers.workflows._inbox import Inbox
from dispatchers.workflows._keys import checked_name
from dispatchers.workflows._letter import Letter, digest_of
from dispatchers.workflows._local import LocalCall, described
from dispatchers.workflows._loop import DurableLoop

NOTHING = b""
"""Digest of a command without arguments."""


class Commands:
    """Commands of one execution. What tasks and the language of workflows talk to.

    Args:
        execution: The id.

        first: The number before the first command.

        started: When it began, in seconds since the epoch.

        recorded: The commands that the journal knows, by number.

        again: Encodes the arguments of a `restart`.

        generation: Of the execution's entries: new commands are of it.
    """

    def __init__(
        self,
        execution: str,
        first: int,
        started: float,
        recorded: Mapping[int, Entry],
        again: Callable[..., bytes],
        generation: int = 0,
    ) -> None:
        self.execution = execution
        self.generation = generation
        self.again = again
        self.state: bytes | None = None
        """Published, and not taken by the turn yet."""
        self._first = self.last = first
        """The number of the last command that was asked for."""
        self.loop = DurableLoop(self, started)  # type: ignore[abstract] # all refused, at its end
        self.new: list[Command] = []
        self.requests: dict[int, DispatchRequest] = {}
        """What the new commands hand over, by number."""
        self.open: dict[int, StepFuture[Any]] = {}
        """Commands whose results are awaited, by number."""
        self.dropped: dict[int, EntryKind] = {}
        """Steps and children that nothing awaits any more, and whose answer is not recorded."""
        self.locals: deque[LocalCall] = deque()
        """Local steps that are not answered, in the order of their numbers."""
        self.signals = Inbox()
        self.timers: dict[int, Timer] = {}
        self.mismatch: str | None = None
        self._recorded = dict(recorded)
        """Those that the code has not asked for yet."""
        self._sent: dict[int, Entry] = {}
        """Recorded dispatches: those that `resume` has kept are of an earlier generation."""
        if generation:
            self._sent = {n: e for n, e in recorded.items() if e.kind is EntryKind.SEND}
        self._marks = {e.name for e in recorded.values() if e.kind is EntryKind.MARK}
        self._patched: dict[str, bool] = {}

    @cached_property
    def chance(self) -> Random:
        """The chance of the code; made where it is asked for, as it takes 2.5 KB."""
        return Random(f"{self.execution}/{self._first}")  # noqa: S311 - repeatable is the point

    def know(self, entry: Entry) -> None:
        """Note a recorded command, unless the code has asked for it."""
        number = entry.number or 0
        if number > self.last:
            self._recorded[number] = entry
            if entry.kind is EntryKind.MARK:
                self._marks.add(entry.name)
            elif self.generation and entry.kind is EntryKind.SEND:
                self._sent[number] = entry

    # Asked by tasks.

    def step(self, task: TaskDefinition, payload: bytes, outgoing: Outgoing) -> StepFuture[Any]:
        """Ask for a run of a task, or for a child where it is a workflow."""
        kind, header = EntryKind.STEP, STEP
        if task.is_workflow:
            kind, header = EntryKind.CHILD, PARENT
        results, digest = task.results, digest_of(payload)
        number = self.last + 1
        entry = self._recorded.get(number)
        # The usual case of a replay: nothing is made that would only be thrown away.
        if entry and entry.digest == digest and entry.kind == kind and entry.name == task.name:
            self._check_running()
            del self._recorded[number]
            self.last = number
        else:
            number = self._issue_letter(
                kind, Letter(self.execution, task, payload, outgoing, header)
            )
        return self._future(kind, task.name, number, results)

    def send(self, task: TaskDefinition, payload: bytes, outgoing: Outgoing) -> DispatchResponse:
        """Hold a dispatch until the turn is committed."""
        letter = Letter(self.execution, task, payload, outgoing, None)
        number = self._issue_letter(EntryKind.SEND, letter)
        return DispatchResponse(
            request_id=self._id_of(number),
            dispatcher=outgoing._alias(),
            backend="",
            status=DispatchStatus.DEFERRED,
        )

    def _id_of(self, number: int) -> str:
        """Return the id of a dispatch, the same at each replay."""
        if (sent := self._sent.get(number)) is None:
            return request_id(self.execution, number, self.generation)
        return decode(sent.body or b"").id

    def call(self, task: TaskDefinition, step: Callable[[], Any]) -> Awaitable[Any]:
        """Return the awaitable of an async task's call; refuse that of a sync one."""
        if not task.is_async:
            raise self.refuse(
                f"calls the task {task.name!r}, which would run again at every replay",
                "await its `.step(...)`, or call its `.function(...)` if that has no effects",
            )
        return StepCoroutine(step)

    # Asked by the language of workflows.

    def local(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StepFuture[Any]:
        """Ask for the call of a function in the turn."""
        name, results = described(function)
        number = self._issue(EntryKind.LOCAL, name, NOTHING)
        self.locals.append(LocalCall(number, function, args, kwargs, results))
        return self._future(EntryKind.LOCAL, name, number, results)

    def publish(self, state: bytes) -> None:
        """Keep a state for the turn."""
        if self.loop.halted:
            raise Unwound
        self.state = state

    def patched(self, name: str) -> bool:
        """Tell whether the execution passes here with the new code."""
        if self.loop.halted:
            raise Unwound
        if name not in self._patched:
            self._patched[name] = self._passes(name)
        return self._patched[name]

    def _passes(self, name: str) -> bool:
        checked_name("a patch", name)
        number = self.last + 1
        # Marks of a `patched` that the code has lost meanwhile are passed over.
        while (entry := self._recorded.get(number)) and entry.kind is EntryKind.MARK:
            if entry.name == name:
                return self._passed(number)
            number += 1
        if name in self._marks:
            raise self._differs(self.last + 1, EntryKind.MARK, name, "it was passed elsewhere")
        if self.last + 1 in self._recorded:
            return False
        self._issue(EntryKind.MARK, name, NOTHING)
        return True

    def _passed(self, number: int) -> bool:
        for each in range(self.last + 1, number + 1):
            del self._recorded[each]
        self.last = number
        return True

    # Asked by the loop.

    def start_timer(self, timer: Timer) -> None:
        """Ask for a timer; one that is never due needs none."""
        when = timer.when()
        if when == float("inf"):
            timer.number = -self.loop.next_serial()
        else:
            timer.number = self._issue(EntryKind.TIMER, repr(when), NOTHING)
        self.timers[timer.number] = timer

    def stop_timer(self, timer: Timer) -> None:
        """Forget a timer: that it fires is not read any more."""
        self.timers.pop(timer.number, None)

    def refuse(self, what: str, cure: str) -> NotDurableError:
        """Halt the code, and return the error to raise in it."""
        error = NotDurableError(f"the workflow {what}: {cure} ({_words.place()})")
        self.halt(str(error))
        return error

    def report(self, context: dict[str, Any]) -> None:
        """Log an exception in a callback; not again at a replay."""
        if not self._recorded:
            exc = context.get("exception")
            text = "execution %s: %s"
            say(logging.ERROR, text, self.execution, context.get("message"), exc_info=exc)

    def halt(self, why: str) -> None:
        """Let the code go no further, as it does not do what is recorded."""
        if self.mismatch is None:
            self.mismatch = why
        self.loop.halt()
        self.locals.clear()

    # Numbers.

    @property
    def missing(self) -> str | None:
        """The first command that is recorded and was not asked for, in words."""
        for number in sorted(self._recorded):
            entry = self._recorded[number]
            if entry.kind is not EntryKind.MARK:
                return f"command {number}: recorded is {_words.command(entry.kind, entry.name)}"
        return None

    @property
    def awaited_any(self) -> bool:
        """Tell whether anything is awaited that the journal can bring."""
        return bool(self.open or self.timers or self.signals.awaited)

    @property
    def awaited(self) -> list[str]:
        """The awaited steps, signals and timers, in words."""
        steps = [str(future) for future in self.open.values()]
        signals = [f"signal {name}" for name in self.signals.awaited]
        timers = sorted(timer.when() for timer in self.timers.values())
        return steps + signals + [f"timer until {_words.instant(when)}" for when in timers]

    def drop(self, number: int) -> None:
        """Forget a command whose result nothing awaits any more."""
        future = self.answered(number)
        if future is not None and future.kind is not EntryKind.LOCAL:
            self.dropped[number] = future.kind

    def answered(self, number: int) -> StepFuture[Any] | None:
        """Return the future of a command, which is awaited no more."""
        # In the order of their numbers: what is beyond was taken out to be run.
        if self.locals and self.locals[0].number <= number:
            self._forget_call(number)
        return self.open.pop(number, None)

    def _forget_call(self, number: int) -> None:
        if self.locals[0].number == number:
            self.locals.popleft()
            return
        for call in self.locals:
            if call.number == number:
                self.locals.remove(call)
                return

    def _future(self, kind: EntryKind, name: str, number: int, results: Any) -> StepFuture[Any]:
        loop = self.loop
        future: StepFuture[Any] = StepFuture(loop=loop)
        loop._serial = future.serial = loop._serial + 1
        future.kind, future.name, future.number = kind, name, number
        future.results = results
        self.open[number] = future
        return future

    def _issue_letter(self, kind: EntryKind, letter: Letter) -> int:
        return self._issue(kind, letter.task.name, letter.digest, letter)

    def _issue(
        self, kind: EntryKind, name: str, digest: bytes, letter: Letter | None = None
    ) -> int:
        """Give a command its number: a new one is kept, another compared with the recorded."""
        self._check_running()
        number = self.last + 1
        entry = self._recorded.pop(number, None)
        if entry is None:
            body, route = self._sealed(letter, number) if letter else (None, "")
            self.new.append(Command(number, kind, name, digest, body, route))
        elif entry.digest != digest or entry.kind != kind or entry.name != name:
            if entry.kind is EntryKind.MARK:  # the code has lost its `patched` since
                self.last = number
                return self._issue(kind, name, digest, letter)
            self._compare(entry, number, kind, name, letter)
        self.last = number
        return number

    def _sealed(self, letter: Letter, number: int) -> tuple[bytes, str]:
        """Return the envelope of a command, and the alias of the dispatcher that gets it."""
        self.requests[number] = request = letter.request(number, self.generation)
        return encode(request), letter.route

    def _check_running(self) -> None:
        # Code that cleans up after an interruption: that is no reason to ask for anything.
        if (handled := exc_info()[1]) is not None:
            self.loop.note(handled)
        if self.loop.halted:
            raise Unwound
        self.loop.check_thread()

    def _compare(
        self, entry: Entry, number: int, kind: EntryKind, name: str, letter: Letter | None
    ) -> None:
        """Accept equal arguments that are written otherwise: sets have no order of their own."""
        if entry.kind != kind or entry.name != name:
            raise self._differs(number, kind, name, _words.command(entry.kind, entry.name))
        if letter is None or not letter.equals(entry):
            raise self._differs(number, kind, name, "the same with other arguments")

    def _differs(self, number: int, kind: EntryKind, name: str, recorded: str) -> Unwound:
        asked = _words.command(kind, name)
        self.halt(
            f"command {number}: recorded is {recorded}, the code asks for {asked} "
            f"({_words.place()})"
        )
        return Unwound()
