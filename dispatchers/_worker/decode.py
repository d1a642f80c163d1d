"""From an envelope to a task and its arguments, or to why this worker cannot run it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatchers._dispatch.error_mapping import type_name
from dispatchers._errors import nearest
from dispatchers._models.envelope import EnvelopeError, NewerEnvelopeError, read_header, task_name
from dispatchers._models.fields import instant_after
from dispatchers._models.outcome import Reason
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers._runtime.clock import now
from dispatchers._tasks.task import catalogue
from dispatchers._worker.frames import place_in_task

if TYPE_CHECKING:
    from dispatchers._tasks.task import AnyTask
    from dispatchers._worker.run import RunSettings

__all__ = ["MissingTask", "Unfit", "opened", "skewed"]

MAX_RETURN_DELAY = 60.0
"""Seconds between two deliveries of work that this worker does not understand."""


MAX_RETURNS = 10_000
"""More add up to a week, which is beyond any grace."""


class MissingTask(NamedTuple):
    """The task of an envelope that was not run, for hooks: it may not even be registered."""

    name: str
    """The registered name that the envelope has."""
    time_limit: float | None = None
    """Unknown."""
    max_attempts: int | None = None
    """Unknown."""


class Unfit(Exception):  # noqa: N818 - carries an outcome from the opening to the end
    """This worker does not run the envelope.

    Args:
        reason: Why.

        message: For people and the dead letter.

        after: Seconds until it may be tried again; None if it may not.
    """

    def __init__(
        self,
        reason: Reason,
        message: str = "",
        *,
        after: float | None = None,
        task: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.after = after
        self.task = task
        self.request_id = request_id


def opened(body: bytes, deliveries: int, settings: RunSettings) -> tuple[AnyTask, dict[str, Any]]:
    """The task of an envelope, and its fields with the arguments typed.

    Raises:
        Unfit: It is not to be run.
    """
    try:
        # Read without parsing the body, since the task decides how its arguments are read.
        name = task_name(body)
        task = catalogue.find(name)
        envelope = None if task is None or not task.implemented else task.reader(body)
    except Exception as exc:
        raise _unread(body, deliveries, settings, exc) from exc
    if task is None or envelope is None:
        raise skewed(body, deliveries, settings, Reason.UNKNOWN_TASK, _unknown(name, task))
    # The quick look and the parser disagree: the JSON repeats the key.
    if envelope["task"] != name:
        raise Unfit(Reason.NO_ENVELOPE, "no envelope: it names two tasks")
    # Before the expiry, so that a task that kills its workers is seen and not just forgotten.
    if deliveries > settings.max_deliveries:
        raise _killer(task, envelope, deliveries, settings)
    if envelope.get("expires") is not None and _expired(envelope):
        raise Unfit(Reason.EXPIRED, "it was late", task=task.name, request_id=envelope["id"])
    return task, envelope


def _killer(
    task: AnyTask, envelope: dict[str, Any], deliveries: int, settings: RunSettings
) -> Unfit:
    return Unfit(
        Reason.TOO_MANY_DELIVERIES,
        f"delivered {deliveries} times without an outcome, {settings.max_deliveries} allowed: "
        "the task may be killing its workers",
        task=task.name,
        request_id=envelope["id"],
    )


def _unknown(name: str, task: AnyTask | None) -> str:
    if task is not None:
        return f"task {name!r} is declared here without a body: import what implements it"
    known = nearest(name, [task.name for task in catalogue.all()])
    return f"no task {name!r} is registered in this worker{known}"


def _unread(body: object, deliveries: int, settings: RunSettings, exc: Exception) -> Unfit:
    """Why an envelope could not be read; validators of the task's own types raise anything."""
    if not isinstance(body, bytes):
        return Unfit(Reason.NO_ENVELOPE, f"no envelope: {type(body).__name__} instead of bytes")
    if isinstance(exc, NewerEnvelopeError):
        return skewed(body, deliveries, settings, Reason.NEWER_ENVELOPE, str(exc))
    if isinstance(exc, EnvelopeError):
        return Unfit(Reason.NO_ENVELOPE, str(exc))
    message = str(exc)
    if not isinstance(exc, PayloadError | DeclarationError):
        message = f"reading the arguments raised {type_name(exc)} at {place_in_task(exc)}"
    return skewed(body, deliveries, settings, Reason.INVALID_ARGUMENTS, message)


def skewed(
    body: bytes, deliveries: int, settings: RunSettings, reason: Reason, message: str
) -> Unfit:
    """Handed back with growing pauses for `skew_grace`, then dead (C11)."""
    # The header can be read of newer envelopes, too: its keys are kept in all versions.
    header = read_header(body)
    age = _age(header["created"], header["due"], deliveries)
    # Handed back, not dead: in a rolling deploy another worker may know the task already.
    after = None if age >= settings.skew_grace else _pause(age)
    return Unfit(reason, message, after=after, task=header["task"], request_id=header["id"])


def _age(created: datetime, due: datetime, deliveries: int) -> float:
    """Seconds since it could first have been handed back.

    Work that comes before it is due was not held back: it counts from its creation. Where that lies
    in the future, too, a clock was put back, and the deliveries tell the time.
    """
    instant = now()
    start = due if due <= instant else created
    if start <= instant:
        return (instant - start).total_seconds()
    age = 0.0
    for _ in range(min(deliveries - 1, MAX_RETURNS)):
        age += _pause(age)
    return age


def _pause(age: float) -> float:
    return min(1.0 + age / 2, MAX_RETURN_DELAY)


def _expired(envelope: dict[str, Any]) -> bool:
    try:
        until = instant_after(envelope["created_at"], envelope["expires"])
    except OverflowError:  # beyond the year 9999
        return False
    return bool(now() >= until)
