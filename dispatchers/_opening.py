"""From an envelope to a task and its arguments, or to why this worker cannot run it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ._catalogue import catalogue
from ._envelope import EnvelopeError, NewerEnvelopeError, task_name
from ._errors import nearest
from ._outcome import Reason
from ._payload_errors import PayloadError
from ._request import Instant, Span

if TYPE_CHECKING:
    from ._current import RunSettings
    from ._task import AnyTask

__all__ = ["Unfit", "opened"]

LONGEST_RETURN = 60.0
"""Seconds between two looks at what this worker does not understand."""


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
        if task is None or not task.implemented:
            raise _skew(body, settings, Reason.UNKNOWN_TASK, _unknown(name, task))
        envelope = task.reader(body)
    except NewerEnvelopeError as exc:
        raise _skew(body, settings, Reason.NEWER_ENVELOPE, str(exc)) from None
    except PayloadError as exc:
        raise _skew(body, settings, Reason.INVALID_ARGUMENTS, str(exc)) from None
    except EnvelopeError as exc:
        raise Unfit(Reason.NO_ENVELOPE, str(exc)) from None
    if envelope["task"] != name:
        raise Unfit(Reason.NO_ENVELOPE, "no envelope: it names two tasks")
    if deliveries > settings.max_deliveries:
        raise _killer(task, envelope, deliveries, settings)
    if "expires" in envelope and _expired(envelope):
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


def _skew(body: bytes, settings: RunSettings, reason: Reason, message: str) -> Unfit:
    """Handed back with growing pauses for `skew_grace`, then dead (C11)."""
    header = _header(body)
    age = (datetime.now(UTC) - header["due"]).total_seconds()
    late = age >= settings.skew_grace
    after = None if late else min(1.0 + max(age, 0.0) / 2, LONGEST_RETURN)
    return Unfit(reason, message, after=after, task=header["task"], request_id=header["id"])


_instant: TypeAdapter[datetime] = TypeAdapter(Instant)
_span: TypeAdapter[timedelta] = TypeAdapter(Span)


def _header(body: bytes) -> dict[str, Any]:
    """Task, id and due time, as far as they can be made out; newer envelopes may differ."""
    epoch = datetime.fromtimestamp(0, UTC)
    try:
        raw = from_json(body)
        created = _instant.validate_python(raw["created_at"])
        due = _instant.validate_python(raw["eta"]) if "eta" in raw else created
        due += _span.validate_python(raw["delay"]) if "delay" in raw else timedelta()
    except (ValueError, TypeError, KeyError, OverflowError, ValidationError):
        return {"task": None, "id": None, "due": epoch}
    return {"task": _text(raw.get("task")), "id": _text(raw.get("id")), "due": due}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _expired(envelope: dict[str, Any]) -> bool:
    limit = envelope["expires"]
    until = envelope["created_at"] + limit if isinstance(limit, timedelta) else limit
    return bool(datetime.now(UTC) >= until)
