"""Redis: Dramatiq's own script, over connections that keep to the time that is left."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from dramatiq.common import current_millis, dq_name
from redis.exceptions import NoScriptError

from dispatchers.redis import bounded_client, within

from ._message import Packet

__all__ = ["RedisPublisher"]

AT_ONCE = 100
"""Messages in one pipeline."""
UNUSED = b"1"
"""The script's argument for maintenance, which is the workers' business."""


class RedisPublisher:
    """Puts messages where Dramatiq's broker does, by the same script.

    Args:
        broker: Dramatiq's; the settings of its client are taken, its connections are not used.
    """

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self._script = broker.scripts["dispatch"]
        self._client: Any = bounded_client(broker.client)
        self._head = (b"EVALSHA", self._script.sha.encode(), b"1", broker.namespace.encode())

    def publish(self, packets: Sequence[Packet], until: float) -> list[Exception | None]:
        """Publish one, or several in pipelines; None for each that Redis has."""
        answers: list[Exception | None] = []
        for start in range(0, len(packets), AT_ONCE):
            some = packets[start : start + AT_ONCE]
            with within(until - monotonic()):
                found = self._published(some)
                if any(isinstance(each, NoScriptError) for each in found):  # nothing was done
                    found = self._once_more(some, found)
            answers += found
        return answers

    def _once_more(
        self, packets: Sequence[Packet], answers: Sequence[Exception | None]
    ) -> list[Exception | None]:
        self._client.script_load(self._script.script)
        missed = [p for p, a in zip(packets, answers, strict=True) if isinstance(a, NoScriptError)]
        again = iter(self._published(missed))
        return [next(again) if isinstance(each, NoScriptError) else each for each in answers]

    def _published(self, packets: Sequence[Packet]) -> list[Exception | None]:
        if len(packets) == 1:
            return [self._one(packets[0])]
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for packet in packets:
                    pipe.execute_command(*self._command(packet))
                said = pipe.execute(raise_on_error=False)
        except Exception as exc:  # noqa: BLE001 - one pipeline, one answer
            return [exc] * len(packets)
        return [each if isinstance(each, Exception) else None for each in said]

    def _one(self, packet: Packet) -> Exception | None:
        try:
            self._client.execute_command(*self._command(packet))
        except Exception as exc:  # noqa: BLE001 - the answer
            return exc
        return None

    def _command(self, packet: Packet) -> tuple[Any, ...]:
        """As `RedisBroker.do_enqueue` has it, dramatiq 2.2."""
        broker = self._broker
        return (
            *self._head,
            b"enqueue",
            current_millis(),
            packet.queue,
            broker.broker_id,
            broker.heartbeat_timeout,
            broker.dead_message_ttl,
            b"0",
            UNUSED,
            packet.stored_as,
            packet.data,
        )

    def probe(self, timeout: float) -> None:
        """Reach the server, or raise."""
        with within(timeout):
            self._client.ping()

    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """How many messages wait in these queues, or are with a worker."""
        names = [f"{self._broker.namespace}:{n}" for name in queues for n in (name, dq_name(name))]
        with within(timeout):
            return sum(self._client.hlen(f"{name}.msgs") for name in names)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._client.connection_pool.disconnect()
