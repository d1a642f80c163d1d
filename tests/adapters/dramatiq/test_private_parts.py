"""What is used of Dramatiq and pika that they do not promise; see `docs/private-parts.md`."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dispatchers_dramatiq import DramatiqDispatcher, register
from dispatchers_dramatiq._connection import SCRIPT_MARKS
from dispatchers_dramatiq._consumer import RabbitConsumer, StubConsumer
from dispatchers_dramatiq._redis_consumer import RedisConsumer
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from dispatchers import ConfigurationError
from dispatchers.testing import Canary

RABBIT, REDIS, STUB = (
    f"dramatiq.brokers.{name}"
    for name in ("rabbitmq:_RabbitmqConsumer", "redis:_RedisConsumer", "stub:_StubConsumer")
)
PARTS = (
    Canary("dramatiq.brokers.rabbitmq:RabbitmqBroker._build_queue_arguments", "self", "queue_name"),
    Canary("dramatiq.brokers.rabbitmq:RabbitmqBroker.parameters"),
    *(
        Canary(f"dramatiq.brokers.{name}.consume", "self", "queue_name", "prefetch", "timeout")
        for name in ("rabbitmq:RabbitmqBroker", "redis:RedisBroker", "stub:StubBroker")
    ),
    Canary("dramatiq.brokers.rabbitmq:DEAD_MESSAGE_TTL"),
    Canary("dramatiq.brokers.rabbitmq:_RabbitmqMessage._tag"),
    Canary("dramatiq.brokers.rabbitmq:_RabbitmqMessage.redelivered"),
    *(Canary(f"{RABBIT}.{name}") for name in RabbitConsumer.private_parts),
    *(Canary(f"{REDIS}.{name}") for name in RedisConsumer.private_parts),
    *(Canary(f"{STUB}.{name}") for name in StubConsumer.private_parts),
    Canary(f"{REDIS}.outstanding_message_count"),
    Canary(f"{REDIS}.requeue", "self", "messages"),
    Canary("dramatiq.brokers.redis:RedisBroker._max_unpack_size", "self"),
    Canary("dramatiq.brokers.redis:RedisBroker.scripts"),
    Canary("dramatiq.brokers.redis:RedisBroker.broker_id"),
    Canary("dramatiq.brokers.redis:RedisBroker.heartbeat_timeout"),
    Canary("dramatiq.brokers.redis:RedisBroker.dead_message_ttl"),
    Canary("dramatiq.brokers.stub:StubBroker.dead_letters_by_queue"),
    Canary("dramatiq.worker:QUEUE_PREFETCH"),
    Canary("dramatiq.worker:Worker.queue_prefetch"),
    Canary("dramatiq.worker:Worker.workers"),
    Canary("dramatiq.broker:MessageProxy._message"),
    Canary("dramatiq.broker:MessageProxy.fail", "self"),
    Canary("dramatiq.middleware.time_limit:TimeLimit.manager"),
    Canary(
        "dramatiq.middleware.time_limit:_CtypesTimeoutManager.remove_timeout", "self", "thread_id"
    ),
    Canary("pika.frame:decode_frame", "data_in"),
    Canary("pika.frame:Method.marshal", "self"),
    Canary("pika.frame:Header", "channel_number", "body_size", "props"),
    Canary("pika.frame:Body", "channel_number", "fragment"),
    Canary("pika.spec:Connection.StartOk", "client_properties", "mechanism", "response"),
    Canary("pika.spec:Connection.Blocked"),
    Canary("pika.spec:Basic.Publish.INDEX"),
    Canary("pika.spec:FRAME_MAX_SIZE"),
    Canary("pika.spec:FRAME_HEADER_SIZE"),
    Canary("pika.spec:FRAME_END_SIZE"),
)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_private_part_is_unchanged(part: Canary) -> None:
    """A new release that changes one fails here before it loses work anywhere."""
    assert part.problem() is None


def test_the_script_takes_its_arguments_in_the_known_order() -> None:
    """Redis: what is silent at run time, and so is refused when the dispatcher is made."""
    broker: Any = RedisBroker(url="redis://127.0.0.1:1")
    text = broker.scripts["dispatch"].script

    assert [mark for mark in SCRIPT_MARKS if mark not in text] == []

    broker.scripts["dispatch"] = broker.client.register_script(text.replace(b"ARGV[8]", b"ARGV[9]"))
    with pytest.raises(ConfigurationError, match="takes other arguments"):
        DramatiqDispatcher(broker=broker)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (RedisBroker, "_max_unpack_size"),
        (RabbitmqBroker, "_build_queue_arguments"),
        (StubBroker, "dead_letters_by_queue"),
    ],
)
def test_a_broker_without_a_private_part_is_refused(kind: type, part: str) -> None:
    """C12: at the start and with words, where work would be lost in silence."""

    class Renamed(kind):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name == part:
                raise AttributeError(name)
            return super().__getattribute__(name)

    with pytest.raises(ConfigurationError, match=f"has no '{part}'.*install an earlier dramatiq"):
        DramatiqDispatcher(broker=Renamed())


def test_a_consumer_without_a_private_part_is_refused() -> None:
    """C9: a worker ends its consumer with words in place of running without its care."""
    broker: Any = StubBroker()
    dispatcher = DramatiqDispatcher(broker=broker, queue="q")
    register(broker, dispatcher)
    broker.declare_queue("q")
    registration = broker.middleware[-1]
    registration._consume = lambda *given: dramatiq.Consumer()

    with pytest.raises(ConfigurationError, match="has no 'queue'"):
        broker.consume("q")
