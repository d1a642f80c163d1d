"""Celery's messages to RabbitMQ: written by Celery, published by the core's confirmed publisher."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterable, Sequence
from functools import partial
from time import monotonic, time
from typing import Any
from urllib.parse import quote

from amqp.exceptions import ChannelError
from kombu import compression as compressors
from kombu import serialization
from kombu.entity import Exchange, Queue
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    calculate_routing_key,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from dispatchers import Sent, rabbitmq
from dispatchers.delivery import say
from dispatchers.net import bounded, first_of

from ._broker import Broker, address_of, gate
from ._connection import Publisher
from ._message import Draft, Message

__all__ = ["RabbitPublisher"]

MAX_HOLD = 2**28 - 1
"""Seconds that Celery's delay queues hold a message: 28 of them, of 1 to 2**27 seconds."""
DUE = Exchange(
    "celery_delayed_due", "topic", arguments={"alternate-exchange": "celery_delayed_undeliverable"}
)
"""Every queue of ours is bound to it, behind the end of Celery's delay queues."""
UNDELIVERABLE = Queue(
    "celery_delayed_undeliverable",
    Exchange("celery_delayed_undeliverable", "fanout"),
    queue_arguments={"x-queue-type": "classic"},
)
"""What is due, and whose queue was deleted meanwhile.

The delay queues keep what goes nowhere, and with 32 of that they stand still, for every queue:
RabbitMQ 3.10, whose dead letters are handed on at least once.
"""
BOUND_FOR = 60.0
"""Seconds after which a queue is bound again: whoever deletes it deletes its bindings, too."""
MAX_ROUTING_KEY = 255
"""Bytes: AMQP 0-9-1, section 4.2.5.3."""
DELIVERY_MODES = {"transient": 1, "persistent": 2}
PERSISTENT = 2


class RabbitPublisher(Publisher):
    """RabbitMQ: the core's confirmed publisher, with the messages that Celery writes."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        options = broker.options
        servers = [_server(each) for each in broker.connections]
        self._rabbit = rabbitmq.Publisher(
            servers, confirm=options.confirm, mandatory=options.mandatory
        )
        self._holds = True
        self._bound: dict[str, float] = {}
        """Queues behind the delay queues, and until when that is believed."""

    def _send(self, messages: Sequence[Message], until: float) -> Sequence[Sent | Exception]:
        packets = [self._packet(message) for message in messages]
        answers = self._rabbit.publish(packets, until - monotonic())
        return [
            Sent(packet.id, durable=self._rabbit.is_durable(packet)) if answer is None else answer
            for packet, answer in zip(packets, answers, strict=True)
        ]

    def _packet(self, message: Message) -> rabbitmq.Message:
        capture = _Capture(message)
        message.draft.run(self._write, capture, message)
        return capture.packet

    def _can_hold(self, draft: Draft, until: float) -> bool:
        """Bind a queue to Celery's delay queues, now and then; they are declared as needed."""
        queue = draft.queue
        if self._bound.get(queue.name, 0.0) > monotonic():
            return True
        if not self._holds or len(_hold_key(queue)) > MAX_ROUTING_KEY:
            return False
        # Taken out: what fails is done from its beginning, as the broker may be a new one.
        is_known = self._bound.pop(queue.name, None) is not None
        try:
            bind = partial(self._bind, queue, until, levels=not is_known)
            bounded(bind, timeout=until - monotonic(), to=self._broker.address)
        except ChannelError as exc:
            if is_known:
                return False
            self._holds = False
            say(
                logging.WARNING,
                "this RabbitMQ holds no delayed messages (%s): workers will hold them, and may be"
                " late with what is due; RabbitMQ 3.10 with the right to declare queues cures it",
                type(exc).__name__,
            )
            return False
        except Exception:  # noqa: BLE001 - no connection in time: the send itself will say so
            return False
        self._bound[queue.name] = monotonic() + BOUND_FOR
        return True

    def _bind(self, queue: Queue, until: float, *, levels: bool) -> None:
        kind = self._broker.app.conf.broker_native_delayed_delivery_queue_type
        servers, left = self._broker.connections, until - monotonic()
        with gate.entered(), first_of(servers, _opened, left, name=address_of) as connection:
            if levels:  # more than a hundred round trips
                declare_native_delayed_delivery_exchanges_and_queues(connection, kind)
            declared = queue(connection.channel())
            with contextlib.suppress(ChannelError):  # there, with other arguments
                declared.declare()
            # A new channel, as the broker closes the one on which a declaration was refused.
            channel = connection.channel()
            UNDELIVERABLE(channel).declare()
            due, key = DUE(channel), f"#.{_hold_key(queue)}"
            due.declare()
            queue(channel).bind_to(due.name, key)
            # The exchange outlives the queue: what is due then still has a way out.
            due.bind_to(CELERY_DELAYED_DELIVERY_EXCHANGE, key)

    def probe(self, timeout: float) -> None:
        self._rabbit.probe(timeout)

    def problems(self, queues: Iterable[str], timeout: float) -> Iterable[str]:
        found = [queue for name in queues if (queue := self._broker.queue(name)) is not None]
        return self._rabbit.check([_declared(queue) for queue in found], timeout)

    def sizes(self, queues: Iterable[str], timeout: float) -> dict[str, tuple[int, int | None]]:
        found = self._rabbit.sizes(queues, timeout)
        return {name: (size, None) for name, size in found.items() if size is not None}

    def close(self) -> None:
        self._rabbit.close()


def _opened(connection: Any, timeout: float) -> Any:
    """Return a connection of kombu's for one declaration, which needs no heartbeat."""
    limits = {"read_timeout": timeout, "write_timeout": timeout, "max_retries": 0}
    fresh = connection.clone(connect_timeout=timeout, heartbeat=0, transport_options=limits)
    fresh.ensure_connection(max_retries=1, timeout=timeout)
    return fresh


class _Capture:
    """Stands in for kombu's producer, so that Celery's sender writes one message of ours.

    Args:
        message: The message that is written.
    """

    packet: rabbitmq.Message

    def __init__(self, message: Message) -> None:
        self._message = message

    def publish(
        self,
        body: Any,
        *,
        exchange: Any = "",
        routing_key: str = "",
        serializer: str = "json",
        compression: str | None = None,
        delivery_mode: Any = None,
        headers: dict[str, Any],
        **more: Any,
    ) -> None:
        """Take what a producer of kombu's is given, and keep the message."""
        content_type, content_encoding, data = serialization.dumps(body, serializer=serializer)
        if compression:
            data, headers["compression"] = compressors.compress(data, compression)
        properties = {k: more[k] for k in PROPERTIES & more.keys() if more[k] not in (None, "")}
        # Persistent by default: a confirm of a transient message promises nothing (C9).
        mode = DELIVERY_MODES.get(delivery_mode, delivery_mode) or PERSISTENT
        queue: Any = self._message.draft.queue
        if self._message.hold:
            exchange, routing_key = _held(queue, self._message.hold)
        self.packet = rabbitmq.Message(
            routing_key,
            data.encode() if isinstance(data, str) else data,
            self._message.draft.id,
            getattr(exchange, "name", exchange),
            {
                **properties,
                "content_type": content_type,
                "content_encoding": content_encoding,
                "delivery_mode": mode,
                "headers": headers,
            },
            [] if queue.no_declare else [_declared(queue)],
        )


PROPERTIES = frozenset(
    {"correlation_id", "reply_to", "priority", "expiration", "user_id", "app_id"}
)
"""AMQP's properties that Celery's sender passes on by name, or a signal may have set."""


def _held(queue: Queue, hold: float) -> tuple[str, str]:
    """Return exchange and routing key by which Celery's delay queues hold a message back.

    A message enters at the queue of its delay's highest bit: the ones above would pass it on.
    """
    wait = min(max(1, -int(-(hold - time()) // 1)), MAX_HOLD)
    return level_name(wait.bit_length() - 1), calculate_routing_key(wait, _hold_key(queue))


def _hold_key(queue: Queue) -> str:
    """Return a queue's name as one word of a topic, without wildcards."""
    return quote(queue.name, safe="").replace(".", "%2E")


def _server(connection: Any) -> Any:
    """Return the server that kombu's connection leads to, with its defaults filled in."""
    defaults = connection.transport.default_connection_params
    external = (connection.login_method or "").upper() == "EXTERNAL"
    return rabbitmq.Server(
        connection.hostname or "localhost",
        int(connection.port or defaults["port"]),
        user=connection.userid or defaults["userid"],
        password=connection.password or defaults["password"],
        virtual_host=connection.virtual_host or "/",
        tls=_tls(connection.ssl) if connection.ssl else None,
        tls_name=connection.ssl.get("server_hostname")
        if isinstance(connection.ssl, dict)
        else None,
        mechanism="EXTERNAL" if external else "PLAIN",
        response=b"" if external else None,
    )


def _tls(given: Any) -> ssl.SSLContext:
    """Return the context for `broker_use_ssl`: certificates are verified unless it says no."""
    said = given if isinstance(given, dict) else {}
    context = ssl.create_default_context(cafile=said.get("ca_certs"))
    if (required := said.get("cert_reqs")) is not None:
        context.check_hostname = required != ssl.CERT_NONE
        context.verify_mode = required
    if said.get("certfile"):
        context.load_cert_chain(said["certfile"], said.get("keyfile"))
    if said.get("ciphers"):
        context.set_ciphers(said["ciphers"])
    return context


def _declared(queue: Any) -> Any:
    """Return a queue of kombu's as the core's publisher declares it, once per connection."""
    named = queue.exchange and queue.exchange.name
    exchange = named and rabbitmq.Exchange(
        queue.exchange.name,
        queue.exchange.type,
        durable=queue.exchange.durable,
        auto_delete=queue.exchange.auto_delete,
        arguments=queue.exchange.arguments,
    )
    arguments = to_rabbitmq_queue_arguments(
        queue.queue_arguments or {},
        expires=queue.expires,
        message_ttl=queue.message_ttl,
        max_length=queue.max_length,
        max_length_bytes=queue.max_length_bytes,
        max_priority=queue.max_priority,
    )
    return rabbitmq.Queue(
        queue.name,
        durable=queue.durable,
        auto_delete=queue.auto_delete,
        exclusive=queue.exclusive,
        arguments=arguments,
        exchange=exchange or None,
        routing_key=queue.routing_key or "",
    )
