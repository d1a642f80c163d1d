"""Work that commands of a workflow hand over: its envelope, and its digest."""

from __future__ import annotations

from hashlib import blake2b

from dispatchers._journal.rules import request_id
from dispatchers._journal.values import Entry
from dispatchers._models.envelope import decode
from dispatchers._models.json_object import JsonObject
from dispatchers._models.request import DispatchRequest
from dispatchers._tasks.definition import TaskDefinition
from dispatchers._tasks.recorder import Outgoing


def digest_of(payload: bytes) -> bytes:
    """Return the digest by which arguments are compared at replay."""
    return blake2b(payload, digest_size=16).digest()


class Letter:
    """Work that a command hands over: a request where it is new, compared where it is recorded."""

    __slots__ = ("_execution", "_header", "_outgoing", "_payload", "digest", "task")

    def __init__(
        self,
        execution: str,
        task: TaskDefinition,
        payload: bytes,
        outgoing: Outgoing,
        header: str | None,
    ) -> None:
        self._execution = execution
        self.task = task
        self._payload = payload
        self._outgoing = outgoing
        self._header = header
        self.digest = digest_of(payload)

    def request(self, number: int, generation: int) -> DispatchRequest:
        """Return the request to be handed over."""
        head, execution = self._outgoing._head(), self._execution
        headers = dict(head.values["headers"])
        if self._header is not None:
            headers[self._header] = f"{execution}/{number}"
        # Not validated again: the head was, and all else is ours.
        return head.named(request_id(execution, number, generation), self._payload, headers)

    @property
    def route(self) -> str:
        """The alias of the dispatcher that gets it."""
        return self._outgoing._alias()

    def equals(self, entry: Entry) -> bool:
        """Tell whether the recorded arguments are equal, as values."""
        if entry.body is None:
            return False
        try:
            read = self.task.codec.decode
            payload: JsonObject = decode(entry.body).payload  # type: ignore[assignment] # ours
            return bool(read(payload.json) == read(self._payload))
        except Exception:  # noqa: BLE001 - written by another version, compared by foreign code
            return False
