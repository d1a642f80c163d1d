"""`Execution`: one execution as it looks from outside, to read and to steer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from pydantic_core import from_json

from dispatchers._config.api import resolve
from dispatchers._journal.failure import Failure, for_people
from dispatchers._journal.loading import journal as current_journal
from dispatchers._journal.values import EntryKind, Record, Status
from dispatchers._models.response import DispatchResponse
from dispatchers._runtime import clock
from dispatchers._runtime.to_thread import off_loop
from dispatchers._tasks.recorder import recording
from dispatchers._worker.steps import wake_of
from dispatchers._worker.waking import turn_request, woken
from dispatchers.workflows._commands import Commands
from dispatchers.workflows._story import Line, story
from dispatchers.workflows._versions import Version

__all__ = ["Execution", "ExecutionError", "UnknownExecutionError"]

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds for one call of the journal."""
PATIENCE = 10.0
"""Seconds in which a start must be recorded, where no timeout is given: a key may be mistyped."""
FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.5
"""Seconds between two looks for a result."""
UNKNOWN = "unknown"
"""The status of an execution that the journal does not have."""
NOT_THERE = "no worker has taken its start yet, its key is another, or it was deleted after its end"


class ExecutionError(Exception):
    """An execution has ended without a result.

    Attributes:
        execution: The id.

        status: `failed`, `cancelled` or `terminated`.

        category: As of a `StepError`.

        exception_type: The dotted name of the exception's class, where there was one.

        message: Its own words.
    """

    __module__ = "dispatchers.workflows"

    def __init__(self, execution: str, status: str, failure: Failure) -> None:
        super().__init__(execution, status, failure)
        self.execution = execution
        self.status = status
        self.category = failure.category
        self.exception_type = failure.exception_type
        self.message = failure.message

    def __str__(self) -> str:
        kind = f"{self.exception_type}: " if self.exception_type else ""
        return f"execution {self.execution!r} {self.status}: {kind}{self.message}"


class UnknownExecutionError(LookupError):
    """The journal has no execution of that id."""

    __module__ = "dispatchers.workflows"

    def __str__(self) -> str:
        return f"the journal has no execution {self.args[0]!r}: {NOT_THERE}"


class Execution(Generic[T]):
    """One execution, read from the journal at each call.

    One that the journal does not have is read as `unknown`: its start may be on its way.

    Args:
        id: The workflow's name, a slash, and the key: `shop.checkout/order-7`.

        versions: The workflow's code by number, to read results with their types; without it they
            are plain JSON values.
    """

    def __init__(self, id: str, versions: Mapping[int, Version] | None = None) -> None:  # noqa: A002
        self.id = id
        self._versions = versions or {}

    def __repr__(self) -> str:
        return f"<execution {self.id!r}>"

    # Reading.

    def status(self) -> str:
        """Return `running`, `completed`, `failed`, `cancelled`, `terminated`, `stuck`, `expected`.

        It is `unknown` as long as no worker has taken the start, and for a key that is another:
        only the answer to the dispatch tells the two apart.
        """
        record = self._looked()
        return UNKNOWN if record is None else record.status.name.lower()

    def state(self) -> dict[str, Any] | None:
        """Return what its code has published last, as JSON values; None is nothing yet."""
        record = self._looked()
        state = None if record is None else record.state
        return None if state is None else cast("dict[str, Any]", from_json(state))

    def why(self) -> str | None:
        """Return why it failed, was cancelled, or is stuck or unknown, for people."""
        record = self._looked()
        return NOT_THERE if record is None else record.why

    def journal(self) -> list[Line]:
        """Return its story: a line for each command with what came of it, each signal, its end."""
        if (record := self._looked()) is None:
            return []
        journal = current_journal()
        entries = journal.entries(self.id, timeout=TIMEOUT)
        return story(record, entries, journal.unsent(self.id, timeout=TIMEOUT))

    def steps(self) -> list[str]:
        """Return the names of the tasks that it asked to run, in order."""
        entries = current_journal().entries(self.id, timeout=TIMEOUT)
        return [entry.name or "" for entry in entries if entry.kind is EntryKind.STEP]

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end, and return what the code returned.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            ExecutionError: It has failed, or was cancelled or terminated.

            TimeoutError: It has not ended in time.

            UnknownExecutionError: It is not in the journal.
        """
        for pause in self._pauses(timeout):
            if (record := self._ended()) is not None:
                return self._result(record)
            time.sleep(pause)
        raise self._late(timeout)

    async def aresult(self, timeout: float | None = None) -> T:
        """Wait for the end without blocking the event loop, and return what the code returned."""
        for pause in self._pauses(timeout):
            if (record := await off_loop(self._ended)) is not None:
                return self._result(record)
            await asyncio.sleep(pause)
        raise self._late(timeout)

    def _pauses(self, timeout: float | None) -> Iterator[float]:
        """Yield the seconds to wait between two looks, the last one at the end of the time."""
        if isinstance(commands := recording.get(), Commands):
            # The turn would wait, and what it reads is not recorded.
            cure = "await the `.step(...)` of that workflow, or a signal that it sends"
            raise commands.refuse(f"waits for the result of {self.id!r}", cure)
        if timeout is not None and math.isnan(timeout):
            raise ValueError("the timeout is NaN, which never passes: give seconds, or None")
        pause, began = FIRST_PAUSE, time.monotonic()
        while True:
            passed = time.monotonic() - began
            left = pause if timeout is None else timeout - passed
            yield max(min(pause, left), 0.0)
            if timeout is None and passed > PATIENCE:
                self._record()
            if timeout is not None and left <= 0:
                return
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _ended(self) -> Record | None:
        record = self._looked()
        return record if record is not None and record.status.is_end else None

    def _result(self, record: Record) -> T:
        if record.status is not Status.COMPLETED:
            raise self._failure(record)
        version = self._versions.get(record.version)
        body = record.output or b"null"
        return cast("T", version.results.decode(body) if version else from_json(body))

    def _failure(self, record: Record) -> ExecutionError:
        failure = Failure.decode(record.output) if record.output else Failure(record.why or "")
        return ExecutionError(self.id, record.status.name.lower(), failure)

    def _late(self, timeout: float | None) -> TimeoutError:
        record = self._record()
        reason = f": {record.why}" if record.why else ""
        return TimeoutError(
            f"execution {self.id!r} is {record.status.name.lower()} after {timeout} s{reason}"
        )

    def _looked(self) -> Record | None:
        return current_journal().look(self.id, timeout=TIMEOUT)

    def _record(self) -> Record:
        if (record := self._looked()) is None:
            raise UnknownExecutionError(self.id)
        return record

    # Steering.

    def cancel(self, reason: str = "") -> DispatchResponse:
        """Cancel it: `CancelledError` is raised where its code waits.

        Args:
            reason: For people.

        Raises:
            UnknownExecutionError: There is no such execution.
        """
        wake = wake_of(self._record())
        event = {"kind": "cancel", "name": for_people(reason)}
        request = turn_request(wake)
        request = request.replace(payload={"execution": self.id, "event": event})
        return resolve(wake.dispatcher).dispatch(request)

    def terminate(self, why: str = "") -> bool:
        """End it at once, without running its code; its children are cancelled.

        Args:
            why: For people.

        Returns:
            False if it had ended.
        """
        journal, why = current_journal(), for_people(why)
        answered = journal.terminate(self.id, why, at=clock.time(), timeout=TIMEOUT)
        woken(answered.wake)
        return answered.first

    def resume(self, number: int | None = None) -> bool:
        """Let it go on after it has failed, was cancelled or terminated, or is stuck.

        Args:
            number: The command from which on everything is done again; None does again what failed
                last, and what followed.

        Returns:
            False if there was nothing to resume.

        Raises:
            ValueError: The number is none of a command.
        """
        if number is not None and number < 1:
            raise ValueError(f"commands are numbered from 1, and this is {number}")
        answered = current_journal().resume(
            self.id, number=number, at=clock.time(), timeout=TIMEOUT
        )
        woken(answered.wake)
        return answered.first
