"""Dead letters: work that failed for good, kept for people to look at and replay."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

from pydantic import AwareDatetime, Field

from ._fork import renew_after_fork
from ._model import Model
from ._outcome import Outcome, RunFailure
from ._request import now

__all__ = ["DeadLetter", "DeadLetterStore", "MemoryDeadLetters"]


class DeadLetter(Model):
    """One piece of work that failed for good."""

    id: str
    """The request's id, or the backend's where the message was no envelope."""
    task: str
    """The registered name, empty where it could not be told."""
    queue: str = ""
    """The queue it was on."""
    reason: str
    """An `Outcome.reason`."""
    attempts: int = 1
    """The attempt that failed last."""
    deliveries: int = 1
    """How often that attempt was delivered."""
    error: RunFailure | None = None
    """What went wrong last."""
    died_at: AwareDatetime = Field(default_factory=now)
    """When it was given up, aware UTC."""
    body: bytes = Field(repr=False)
    """The envelope as it was delivered."""

    @classmethod
    def of(
        cls,
        outcome: Outcome,
        body: bytes,
        *,
        id: str,  # noqa: A002
        task: str = "",
        queue: str = "",
        deliveries: int = 1,
    ) -> DeadLetter:
        """The letter for a run that ended with the action `dead`.

        Args:
            outcome: What became of the run.

            body: The envelope as it was delivered.

            id: The request's id, or the backend's own where the message was no envelope.

            task: The task's name, if the outcome knows none.

            queue: The queue it was on.

            deliveries: How often that attempt was delivered.
        """
        return cls(
            id=id,
            task=outcome.task or task,
            queue=queue,
            reason=outcome.reason.value,
            attempts=outcome.attempt,
            deliveries=deliveries,
            error=outcome.error,
            body=body,
        )


class DeadLetterStore(Protocol):
    """Where dead letters are kept. An id that is there already is replaced."""

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter; it is safe when this returns."""
        ...

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> list[DeadLetter]:
        """The newest letters first."""
        ...

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002
        """One letter."""
        ...

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter; false if there is none."""
        ...

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter; false if there is none."""
        ...


class MemoryDeadLetters:
    """Dead letters in this process, for tests; the oldest go when there are too many."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._letters: OrderedDict[str, DeadLetter] = OrderedDict()
        self._lock = threading.RLock()
        renew_after_fork(self)

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter."""
        with self._lock:
            self._letters[letter.id] = letter
            self._letters.move_to_end(letter.id)
            while len(self._letters) > self._limit:
                self._letters.popitem(last=False)

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> list[DeadLetter]:
        """The newest letters first."""
        with self._lock:
            newest = list(reversed(self._letters.values()))
        wanted = (
            letter
            for letter in newest
            if task in (None, letter.task) and queue in (None, letter.queue)
        )
        return [letter for letter, _ in zip(wanted, range(limit), strict=False)]

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002
        """One letter."""
        return self._letters.get(id)

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter; false if there is none."""
        with self._lock:
            if (letter := self._letters.get(id)) is None:
                return False
            self._letters[id] = letter.model_copy(update={"body": body})
            return True

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter; false if there is none."""
        with self._lock:
            return self._letters.pop(id, None) is not None

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
