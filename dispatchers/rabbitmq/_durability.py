"""Checks of broker settings that lose durable messages (C9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ._errors import BlockedError, UnconfirmedError
from ._message import Message, Queue

if TYPE_CHECKING:
    from ._connection import Connection

__all__ = ["problems_of"]


def problems_of(connection: Connection, queues: Iterable[Queue], until: float) -> list[str]:
    """Return one sentence for each setting that loses messages."""
    found: list[str] = []
    try:
        _publish_nowhere(connection, until)
        for queue in queues:
            # Only queues that exist: a check must not declare any.
            if connection.size(queue.name, until) is not None:
                declared = {"durable": queue.durable, "auto_delete": queue.auto_delete}
                found += _of_queue(queue.name, {**declared, **connection.arguments(queue, until)})
    except (BlockedError, UnconfirmedError) as exc:
        # Not lent again: the broker may keep it blocked.
        connection.usable = False
        found.append(f"{exc}: free memory or disk there")
    return found


def _publish_nowhere(connection: Connection, until: float) -> None:
    """Publish to a queue that does not exist: an alarm is told to those who publish only."""
    message = Message(f"dispatchers.{uuid4().hex}", b"", id="alarms")
    (answer,) = connection.publish([message], until)
    if isinstance(answer, BlockedError | UnconfirmedError):
        raise answer
    connection.size(message.routing_key, until)  # the broker blocks after the first publish


def _of_queue(name: str, differing: dict[str, Any]) -> Iterator[str]:
    if differing.get("durable") is False:
        yield (
            f"queue {name!r} is not durable: a restart of the broker loses what it holds; "
            "delete it when it is empty, so that it is declared anew"
        )
    if differing.get("auto_delete"):
        yield f"queue {name!r} goes with its last consumer, and what it holds (auto_delete)"
    for argument, unit in (("x-message-ttl", "messages"), ("x-expires", "the whole queue")):
        if (limit := differing.get(argument)) is not None:
            yield f"queue {name!r} drops {unit} after {limit / 1000:g} s ({argument})"
    # The probe asks for reject-publish: what does not differ from it is that.
    rejects = str(differing.get("x-overflow", "reject-publish")).startswith("reject-publish")
    for argument, unit in (("x-max-length", "messages"), ("x-max-length-bytes", "bytes")):
        if (limit := differing.get(argument)) is not None and not rejects:
            yield (
                f"queue {name!r} drops its oldest messages beyond {limit} {unit} ({argument}): "
                "set x-overflow to reject-publish"
            )
