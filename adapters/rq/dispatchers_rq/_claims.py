"""Claims on waiting jobs that are moved to another backend, under the leases of workers."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from dispatchers.delivery import DeliveryCount
from dispatchers.moving import MARK, Claimed, ListClaims, Signs, Window
from dispatchers.redis import Script, identity, within

from ._broker import Broker
from ._leases import Leases
from ._message import body_of, fields_of, leases_key
from ._scripts import CLAIM, LEAVE, RENEW

DUE = "dispatchers_due"
"""The time of a claimed job that was scheduled."""


class Part(NamedTuple):
    """The part of a queue."""

    queue: str
    kind: Literal["list", "scheduled"]


class RQClaims(ListClaims[Part]):
    """Claims on our jobs; those of RQ's own are left.

    Args:
        broker: The Redis and its queues. Not owned, never closed.

        queues: Their names; None for all.
    """

    def __init__(self, broker: Broker, queues: Sequence[str] | None) -> None:
        super().__init__()
        self.lease = broker.options.lease
        self._broker, self._client, self._given = broker, broker.client, queues
        self._timeout = broker.options.deadline
        # It gives back what dead workers, and dead moves, have left.
        self._leases = Leases(self._client, broker.options)
        self._token = f"{MARK}{uuid4().hex}"
        # Leases are renewed by another thread: never in the midst of settling them.
        self._lock = Lock()
        self._held: set[tuple[str, str]] = set()
        self._renewals = 0
        self._signs = Signs()

    @property
    def store(self) -> str:
        """Name the server and its database."""
        with within(self._timeout):
            return f"rq:{identity(self._client)}"

    def lists(self) -> Sequence[Part]:
        """Return what is due in each queue, then what is scheduled."""
        names = self._queues()
        return [
            *(Part(name, "list") for name in names),
            *(Part(name, "scheduled") for name in names),
        ]

    def _queues(self) -> Sequence[str]:
        return self._given or self._broker.queues(timeout=self._timeout)

    def window(self, part: Part, start: int, limit: int) -> Window:
        """Claim our jobs among the next ones of a queue."""
        with self._lock:
            reply = self._run(CLAIM, [(part.queue, part.kind, start, limit, self._token)])[0]
            seen, *found = reply
            claimed = [_claimed(part.queue, id_.decode(), fields_of(flat)) for id_, flat in found]
            self._held |= {each.handle for each in claimed}
        return Window(claimed, seen - len(claimed), seen < limit)

    def settle(self, gone: Sequence[Claimed], back: Sequence[Claimed]) -> None:
        """Delete what was moved; put the rest to the front, the last one first."""
        fates = [(each.handle, "gone") for each in gone]
        fates += [(each.handle, "back") for each in reversed(back)]
        with self._lock:
            self._run(LEAVE, [(*handle, self._token, fate) for handle, fate in fates])
            self._held -= {handle for handle, _ in fates}

    def recover(self, known: Sequence[Claimed]) -> None:
        """Give back what an answer that was lost has claimed."""
        with self._lock:
            own = {
                (queue, id_.decode())
                for queue in self._queues()
                for id_, held in self._leased(queue).items()
                if held.decode().startswith(self._token)
            }
            self._held = {each.handle for each in known}
            lost = sorted(own - self._held)
            self._run(LEAVE, [(*handle, self._token, "back") for handle in lost])

    def _leased(self, queue: str) -> dict[bytes, bytes]:
        with within(self._timeout):
            found: dict[bytes, bytes] = self._client.hgetall(leases_key(queue))
        return found

    def renew(self) -> bool:
        """Renew every lease, and look after those of others."""
        with self._lock:
            self._renewals += 1
            items = [(*each, self._token, self._renewals) for each in self._held]
            alive = all(self._run(RENEW, items))
            if not alive:
                # What is not renewed any more goes back, as the rest of it has.
                self._held.clear()
            self._leases.observe(self._queues())
        return alive

    @property
    def expects(self) -> bool:
        """Tell whether the leases of another move are not renewed."""
        signs: dict[str, bytes] = {}
        for queue in self._queues():
            leases = self._leased(queue)
            signs |= {f"{v.decode()[: len(self._token)]}{k!r}": v for k, v in leases.items()}
        others = {name: v for name, v in signs.items() if not name.startswith(self._token)}
        return self._signs.is_missing(others)

    def _run(self, script: Script, items: Sequence[Sequence[Any]]) -> list[Any]:
        if not items:
            return []
        with within(self._timeout):
            replies = script.run_many(self._client, items)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies


def _claimed(queue: str, id: str, fields: dict[bytes, bytes]) -> Claimed:  # noqa: A002
    try:
        body = body_of(fields)
    except ValueError:
        body = b""  # the new backend is not asked: it is no envelope
    due = fields.get(DUE.encode())
    attempt = DeliveryCount.read(fields).attempt
    return Claimed((queue, id), body, attempt, None if due is None else float(due))
