"""Dead letters: work that failed permanently, kept for inspection and replay."""

from __future__ import annotations

import json
from typing import Protocol

from pydantic import AwareDatetime, Field

from dispatchers._errors import public
from dispatchers._models.base import Model
from dispatchers._models.outcome import Outcome, RunFailure
from dispatchers._runtime.clock import now


@public
class DeadLetter(Model):
    """One piece of work that failed permanently."""

    id: str
    """The request's id, or the backend's where the message was not an envelope."""
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
        """Make the dead letter of a run that ended as `dead`.

        Args:
            outcome: What became of the run.

            body: The envelope as it was delivered.

            id: The request's id, or the backend's where the message was not an envelope.

            task: The task's name, if the outcome knows none.

            queue: The queue it was on.

            deliveries: How often that attempt was delivered.
        """
        return cls(
            id=id,
            # The outcome first: a former name of the task has become its present one there.
            task=outcome.task or task,
            queue=queue,
            reason=outcome.reason.value,
            attempts=outcome.attempt,
            deliveries=deliveries,
            error=outcome.error,
            body=body,
        )

    def to_json(self, *, body: bool = True) -> str:
        """Pack the letter as JSON text, for a store.

        Args:
            body: With the envelope, as base64; without, for a store that has it beside the text.
        """
        return self.model_dump_json(exclude=None if body else {"body"})

    @classmethod
    def from_json(cls, text: str | bytes, *, body: bytes | None = None) -> DeadLetter:
        """Unpack a letter that `to_json` packed, in this version or another.

        Fields that a later version added are left out.

        Args:
            text: The packed letter.

            body: The envelope, where it was kept beside the text; it replaces one in the text.

        Raises:
            ValueError: The text is not a packed letter.
        """
        if body is not None:
            text = _with_no_body(text)
        letter = cls.model_validate_json(text, extra="ignore")
        return letter if body is None else letter.model_copy(update={"body": body})


def _with_no_body(text: str | bytes) -> str:
    """Return a packed letter with an empty envelope, which a letter cannot do without."""
    values: object = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("a packed letter is a JSON object")  # noqa: TRY004 - of the text
    return json.dumps({**values, "body": ""})


class DeadLetterStore(Protocol):
    """Store of dead letters. An id that exists is replaced."""

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter; it is safe when this returns."""
        ...

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> list[DeadLetter]:
        """List dead letters, the newest first."""
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
