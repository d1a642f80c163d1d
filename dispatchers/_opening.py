"""From an envelope to a task and its arguments, or to why this worker cannot run it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import from_json

from ._catalogue import catalogue
from ._envelope import EnvelopeError, NewerEnvelopeError, task_name
from ._errors import nearest
from ._outcome import Reason
from ._payload_errors import DeclarationError, PayloadError
from ._request import Instant, Span
from ._verdict import place_of, type_name

if TYPE_CHECKING:
    from ._current import RunSettings
    from ._task import AnyTask

__all__ = ["Unfit", "opened"]

LONGEST_RETURN = 60.0
"""Seconds between two looks at what this worker does not understand."""
MOST_PAUSES = 10_000
"""More add up to a week, which is beyond any grace."""


class Unfit(Exception):  # noqa: N818 - carries an outcome from the opening to the end
    """This worker does not run the envelope.

    Args:
        reason: Why.

        message: For people and the dead letter.

        after: Seconds until it may be tried again; None if that is no use.
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
        name = task_name(body)
        task = catalogue.find(name)
        envelope = None if task is None or not task.implemented else task.reader(body)
    except Exception as exc:
        raise _unread(body, deliveries, settings, exc) from exc
    if task is None or envelope is None:
        raise _skew(body, deliveries, settings, Reason.UNKNOWN_TASK, _unknown(name, task))
    if envelope["task"] != name:
        raise Unfit(Reason.NO_ENVELOPE, "no envelope: it names two tasks")
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
        return _skew(body, deliveries, settings, Reason.NEWER_ENVELOPE, str(exc))
    if isinstance(exc, EnvelopeError):
        return Unfit(Reason.NO_ENVELOPE, str(exc))
    message = str(exc)
    if not isinstance(exc, PayloadError | DeclarationError):
        message = f"reading the arguments raised {type_name(exc)} at {place_of(exc)}"
    return _skew(body, deliveries, settings, Reason.INVALID_ARGUMENTS, message)


def _skew(
    body: bytes, deliveries: int, settings: RunSettings, reason: Reason, message: str
) -> Unfit:
    """Handed back with growing pauses for `skew_grace`, then dead (C11)."""
    header = _header(body)
    age = _age(header["created"], header["due"], deliveries)
    after = None if age >= settings.skew_grace else _pause(age)
    return Unfit(reason, message, after=after, task=header["task"], request_id=header["id"])


def _age(created: datetime, due: datetime, deliveries: int) -> float:
    """Seconds since it could first have been handed back.

    Work that comes before it is due was not held back: it counts from its creation. Where that lies
    in the future, too, a clock was put back, and the deliveries tell the time.
    """
    now = datetime.now(UTC)
    start = due if due <= now else created
    if start <= now:
        return (now - start).total_seconds()
    age = 0.0
    for _ in range(min(deliveries - 1, MOST_PAUSES)):
        age += _pause(age)
    return age


def _pause(age: float) -> float:
    return min(1.0 + age / 2, LONGEST_RETURN)


LATE = ConfigDict(defer_build=True)
"""Built on first use: most processes never meet what they do not understand."""
_instant: TypeAdapter[datetime] = TypeAdapter(Instant, config=LATE)
_span: TypeAdapter[timedelta] = TypeAdapter(Span, config=LATE)


def _header(body: bytes) -> dict[str, Any]:
    """Task, id and due time, as far as they can be made out; newer envelopes may differ."""
    epoch = datetime.fromtimestamp(0, UTC)
    try:
        raw = from_json(body)
        created = _instant.validate_python(raw["created_at"])
        due = _instant.validate_python(raw.get("eta") or created)
        due += _span.validate_python(raw.get("delay") or timedelta())
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        return {"task": None, "id": None, "created": epoch, "due": epoch}
    known = {"task": _text(raw.get("task")), "id": _text(raw.get("id"))}
    return {**known, "created": created, "due": due}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _expired(envelope: dict[str, Any]) -> bool:
    limit = envelope["expires"]
    try:
        until = envelope["created_at"] + limit if isinstance(limit, timedelta) else limit
    except OverflowError:  # beyond the year 9999
        return False
    return bool(datetime.now(UTC) >= until)
