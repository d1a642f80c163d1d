"""`dispatchers.rabbitmq` against real brokers: what each answer of theirs becomes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pika
import pytest

from dispatchers import ConfigurationError, ErrorCategory, RejectedError
from dispatchers.rabbitmq import (
    BlockedError,
    Exchange,
    Message,
    NackedError,
    NotTriedError,
    Publisher,
    Queue,
    RefusedError,
    ReplyError,
    ReturnedError,
    Server,
    UnconfirmedError,
    category_of,
    is_certainly_unsent,
)
from dispatchers.testing import FaultProxy
from dispatchers.testing.conformance._tools import answered
from dispatchers.testing.servers import RabbitMQServer

TIMEOUT = 10.0


def server_of(url: str) -> Server:
    parts = urlsplit(url)
    return Server(
        parts.hostname or "", parts.port or 5672, parts.username or "", parts.password or ""
    )


def channel_of(server: Server) -> Any:
    credentials = pika.PlainCredentials(server.user, server.password)
    parameters = pika.ConnectionParameters(server.host, server.port, credentials=credentials)
    return pika.BlockingConnection(parameters).channel()


@pytest.fixture
def server(shared_rabbitmq: str) -> Server:
    return server_of(shared_rabbitmq)


@pytest.fixture
def publisher(server: Server) -> Iterator[Publisher]:
    found = Publisher([server])
    yield found
    found.close()


@pytest.fixture
def channel(server: Server) -> Iterator[Any]:
    """Pika's own, to look from the other side."""
    found = channel_of(server)
    yield found
    found.connection.close()


@pytest.fixture
def name(channel: Any) -> Iterator[str]:
    """The name of a queue that does not outlive the test."""
    found = f"publisher-{uuid4().hex}"
    yield found
    if channel.is_closed:
        channel = channel.connection.channel()
    channel.queue_delete(found)


def message(name: str, data: bytes = b"x", **more: Any) -> Message:
    return Message(name, data, id=uuid4().hex, queues=[Queue(name)], **more)


def test_a_confirmed_message_is_in_its_queue(publisher: Publisher, channel: Any, name: str) -> None:
    """C3: None is the broker's confirm; the queue is declared, the message is persistent."""
    sent = message(name, b"body", properties={"priority": 3, "headers": {"a": "b"}})

    assert publisher.publish([sent], TIMEOUT) == [None]

    _, properties, body = channel.basic_get(name, auto_ack=True)
    assert body == b"body"
    assert (properties.message_id, properties.delivery_mode, properties.priority) == (sent.id, 2, 3)
    assert properties.headers == {"a": "b"}


def test_headers_of_any_type_travel(publisher: Publisher, channel: Any, name: str) -> None:
    """C5: what AMQP has no type for in pika is written as text, wherever it lies."""
    given = {"a": 1.5, "b": [1, 2.5, ("x", None)], "c": {1: True, "d": 0.25}}

    assert publisher.publish([message(name, properties={"headers": given})], TIMEOUT) == [None]

    _, properties, _ = channel.basic_get(name, auto_ack=True)
    assert properties.headers == {
        "a": "1.5",
        "b": [1, "2.5", ["x", None]],
        "c": {"1": True, "d": "0.25"},
    }


def test_an_exchange_and_its_binding_are_declared(
    publisher: Publisher, channel: Any, name: str
) -> None:
    """A message of another exchange than the default one reaches the bound queue."""
    exchange = Exchange(f"x-{name}", "topic", auto_delete=True)
    queue = Queue(name, exchange=exchange, routing_key="mail.*")
    sent = Message("mail.de", b"x", id="1", exchange=exchange.name, queues=[queue])

    assert publisher.publish([sent], TIMEOUT) == [None]

    assert channel.basic_get(name, auto_ack=True)[2] == b"x"


def test_a_message_that_no_queue_took_is_returned(publisher: Publisher) -> None:
    """C3: the confirm of a message that no queue took is none."""
    good = Message(f"nowhere-{uuid4().hex}", b"", id="1")

    (answer,) = publisher.publish([good], TIMEOUT)

    assert isinstance(answer, ReturnedError)
    assert category_of(answer) is ErrorCategory.NOT_FOUND
    assert is_certainly_unsent(answer)


def test_a_deleted_queue_is_declared_again(publisher: Publisher, channel: Any, name: str) -> None:
    """A connection that has declared a queue notices that it is gone, and publishes once more."""
    assert publisher.publish([message(name)], TIMEOUT) == [None]
    channel.queue_delete(name)

    assert publisher.publish([message(name), message(name)], TIMEOUT) == [None, None]

    assert channel.queue_declare(name, passive=True).method.message_count == 2


def test_a_full_queue_that_rejects_is_a_nack(publisher: Publisher, channel: Any, name: str) -> None:
    """C4: `capacity`, and certainly not stored; the other message is."""
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(name, durable=True, arguments=limits)

    first, second = publisher.publish([message(name), message(name)], TIMEOUT)

    assert first is None
    assert isinstance(second, NackedError)
    assert category_of(second) is ErrorCategory.CAPACITY
    assert is_certainly_unsent(second)


def test_a_message_above_the_brokers_limit_is_too_large(
    publisher: Publisher, channel: Any, name: str
) -> None:
    """C4: RabbitMQ closes the channel over it; it alone is refused, its neighbours are stored."""
    limit = 128 << 20
    large = message(name, b"x" * (limit + 1))

    first, answer, last = publisher.publish([message(name), large, message(name)], 60)

    assert first is None
    assert isinstance(answer, RefusedError)
    assert category_of(answer) is ErrorCategory.TOO_LARGE
    assert is_certainly_unsent(answer)
    assert isinstance(last, NotTriedError)
    assert publisher.publish([message(name)], TIMEOUT) == [None]
    assert channel.queue_declare(name, passive=True).method.message_count == 2


def test_a_missing_exchange_is_certainly_refused(publisher: Publisher) -> None:
    """C3: the broker closes the channel and keeps nothing: not `unknown`."""
    sent = Message("key", b"", id="1", exchange=f"missing-{uuid4().hex}")

    (answer,) = publisher.publish([sent], TIMEOUT)

    assert answer is not None
    assert category_of(answer) is ErrorCategory.NOT_FOUND
    assert is_certainly_unsent(answer)


def test_a_queue_with_other_arguments_is_used_as_it_is(
    publisher: Publisher, channel: Any, name: str
) -> None:
    """The application's own declaration counts, not ours."""
    channel.queue_declare(name, durable=True, arguments={"x-max-priority": 5})

    assert publisher.publish([message(name)], TIMEOUT) == [None]


def test_what_lies_in_a_queue_that_is_not_durable_is_not_durable(
    publisher: Publisher, channel: Any, name: str
) -> None:
    """C9: known from the broker's refusal of a durable declaration, or from the message."""
    channel.queue_declare(name, durable=False)
    sent = message(name)
    elsewhere = message(f"{name}-2", properties={"delivery_mode": 1})

    assert publisher.publish([sent], TIMEOUT) == [None]

    assert not publisher.is_durable(sent)
    assert not publisher.is_durable(elsewhere)
    assert not publisher.is_durable(message(name)._replace(queues=[Queue(name, durable=False)]))
    assert publisher.is_durable(message(f"{name}-2"))


@pytest.mark.parametrize("declared", [True, False])
def test_what_lies_in_a_queue_that_goes_with_its_consumers_is_not_durable(
    publisher: Publisher, channel: Any, name: str, declared: bool
) -> None:
    """C9: whether the application declares it so, or the broker has it so."""
    channel.queue_declare(name, durable=True, auto_delete=True)
    sent = message(name)._replace(queues=[Queue(name, auto_delete=declared)])

    assert publisher.publish([sent], TIMEOUT) == [None]

    assert not publisher.is_durable(sent)


def test_a_wrong_password_is_told_at_once(server: Server) -> None:
    """C4: `authentication`; nothing was handed over, and no secret is in the words."""
    publisher = Publisher([Server(server.host, server.port, "guest", "hunter2")])

    with pytest.raises(RejectedError) as caught:
        publisher.publish([message("q")], TIMEOUT)

    assert caught.value.category is ErrorCategory.AUTHENTICATION
    assert "hunter2" not in f"{caught.value} {publisher!r} {server!r}"


def test_the_next_server_is_tried(server: Server, name: str) -> None:
    """A server that refuses connections costs nothing where another one answers."""
    with FaultProxy() as proxy:
        proxy.refuse()
        publisher = Publisher([Server("127.0.0.1", proxy.port), server])

        assert publisher.publish([message(name)], TIMEOUT) == [None]
    publisher.close()


def test_a_broker_that_stops_in_the_middle_leaves_it_open(server: Server, name: str) -> None:
    """C3: written and not answered in time may have arrived."""
    with FaultProxy(server.host, server.port) as proxy:
        publisher = Publisher([Server("127.0.0.1", proxy.port, server.user, server.password)])
        assert publisher.publish([message(name)], TIMEOUT) == [None]
        proxy.black_hole()

        (answer,) = publisher.publish([message(name)], 0.2)
    publisher.close()

    assert isinstance(answer, UnconfirmedError)
    assert not is_certainly_unsent(answer)


def test_a_batch_ends_with_its_time(publisher: Publisher, name: str) -> None:
    """C2: what was not written when the time is over was certainly not handed over."""
    many = [message(name, b"x" * 1000) for _ in range(20_000)]
    publisher.publish(many[:1], TIMEOUT)

    answers = answered(0.3, lambda: publisher.publish(many, 0.3))

    assert len(answers) == len(many)
    assert isinstance(answers[-1], NotTriedError)
    assert category_of(answers[-1]) is ErrorCategory.TIMEOUT


@pytest.mark.parametrize(
    ("raised", "category", "unsent"),
    [
        (ReturnedError(), "not_found", True),
        (NackedError(), "capacity", True),
        (BlockedError(), "capacity", True),
        (NotTriedError(), "timeout", True),
        (UnconfirmedError(), "timeout", False),
        (RefusedError(406, "larger than configured max size", publishing=True), "too_large", True),
        (RefusedError(404, "no exchange", publishing=True), "not_found", True),
        (ReplyError(403, "ACCESS_REFUSED - Login was refused"), "authentication", False),
        (ReplyError(403, "access to queue refused", channel=True), "permission", False),
        (ReplyError(320, "CONNECTION_FORCED"), "unavailable", False),
        (ReplyError(541, "INTERNAL_ERROR"), "unavailable", False),
        (ValueError(), None, False),
    ],
    ids=repr,
)
def test_each_answer_has_its_category(
    raised: Exception, category: str | None, unsent: bool
) -> None:
    """C4: the table of what RabbitMQ can say; what is not its own is left to others."""
    assert category_of(raised) == category
    assert is_certainly_unsent(raised) is unsent


@pytest.mark.parametrize(
    ("cause", "category"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "unavailable"),
        (UnconfirmedError(), "timeout"),
        (None, "timeout"),
    ],
)
def test_what_was_not_tried_has_the_category_of_what_kept_it(cause: Any, category: str) -> None:
    """C4: a socket that was late, as under a memory alarm, is no broker that is gone."""
    raised = NotTriedError()
    raised.__cause__ = cause

    assert category_of(raised) == category


def test_a_publisher_without_servers_is_refused() -> None:
    """C12: at the start, with words."""
    with pytest.raises(ConfigurationError, match="no server"):
        Publisher([])


def test_it_is_imported_without_pika() -> None:
    """Who uses another broker pays nothing, and need not have pika."""
    code = "import sys, dispatchers.rabbitmq; sys.exit('pika' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestCheck:
    """`check` reads what the broker's own settings make of a durable message."""

    def test_a_sound_queue_has_no_problem(self, publisher: Publisher, name: str) -> None:
        """A queue that is not there yet has none either, and is not declared by asking."""
        assert publisher.check([Queue(name)], TIMEOUT) == []
        assert publisher.sizes([name], TIMEOUT) == {name: None}

        publisher.publish([message(name)], TIMEOUT)

        assert publisher.check([Queue(name)], TIMEOUT) == []
        assert publisher.sizes([name], TIMEOUT) == {name: 1}

    def test_a_queue_that_is_not_durable_is_named(
        self, publisher: Publisher, channel: Any, name: str
    ) -> None:
        """C9: a restart loses what it holds."""
        channel.queue_declare(name, durable=False)

        (problem,) = publisher.check([Queue(name, arguments={"x-max-priority": 3})], TIMEOUT)

        assert "not durable" in problem
        assert name in problem
        assert publisher.check([Queue(name, durable=False)], TIMEOUT) == [problem]

    def test_a_queue_that_goes_with_its_consumers_is_named(
        self, publisher: Publisher, channel: Any, name: str
    ) -> None:
        """C9: a stopped worker takes what waits with it, beside other differences."""
        channel.queue_declare(name, auto_delete=True, arguments={"x-message-ttl": 5000})

        problems = publisher.check([Queue(name)], TIMEOUT)

        assert len(problems) == 3
        assert any("goes with its last consumer" in each for each in problems)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"x-message-ttl": 5000}, "after 5 s (x-message-ttl)"),
            ({"x-expires": 60000}, "whole queue after 60 s"),
            ({"x-max-length": 100}, "beyond 100 messages"),
            ({"x-max-length-bytes": 4096, "x-overflow": "drop-head"}, "beyond 4096 bytes"),
        ],
    )
    def test_limits_that_drop_messages_are_named(
        self,
        publisher: Publisher,
        channel: Any,
        name: str,
        arguments: dict[str, object],
        words: str,
    ) -> None:
        """C9: beside other arguments that differ, and with what the adapter declares itself."""
        others = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        channel.queue_declare(name, durable=True, arguments={**others, **arguments})

        (problem,) = publisher.check([Queue(name)], TIMEOUT)
        (again,) = publisher.check([Queue(name, arguments={**others, **arguments})], TIMEOUT)

        assert words in problem
        assert again == problem

    def test_a_limit_that_rejects_is_none(
        self, publisher: Publisher, channel: Any, name: str
    ) -> None:
        """What is refused is told to the caller, and not lost."""
        limits = {"x-max-length": 100, "x-overflow": "reject-publish"}
        channel.queue_declare(name, durable=True, arguments=limits)

        assert publisher.check([Queue(name)], TIMEOUT) == []


@pytest.mark.slow
def test_an_alarm_is_told(private_rabbitmq: RabbitMQServer) -> None:
    """C3: `check` says it, no publish hangs, and it passes with its cause."""
    server = server_of(private_rabbitmq.url)
    publisher = Publisher([server])
    assert publisher.publish([message("mail")], TIMEOUT) == [None]
    private_rabbitmq.alarm()
    try:
        problems = publisher.check([Queue("mail")], 1.0)
        answers = [publisher.publish([message("mail")], 0.5)[0] for _ in range(3)]
    finally:
        private_rabbitmq.end_alarm()

    assert len(problems) == 1
    assert "takes no messages" in problems[0]
    assert all(isinstance(each, BlockedError | UnconfirmedError | None) for each in answers)
    assert "takes no messages" in str(answers[-1])
    while publisher.publish([message("mail")], TIMEOUT) != [None]:
        time.sleep(0.05)
    publisher.close()
