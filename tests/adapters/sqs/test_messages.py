"""Envelopes as messages: what is counted, packed, held back and told apart."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from dispatchers_sqs import SQSDispatcher, SQSOptions
from dispatchers_sqs._message import (
    MAX_ENVELOPE,
    MAX_SIZE,
    Message,
    counts_of,
    later,
    message,
)

from dispatchers import ConfigurationError, ErrorCategory, RejectedError
from dispatchers.delivery import DeliveryCount
from dispatchers.testing import tasks

from .service import REGION, Service

STANDARD, FIFO = SQSOptions(queue="mail"), SQSOptions(queue="mail.fifo")


def made(options: SQSOptions, body: bytes = b"{}", **given: Any) -> dict[str, Any]:
    request = tasks.note.options(**given).request("/nowhere")
    return message(request, body, request.queue or options.queue, options).entry


def test_a_standard_queue_gets_the_envelope_alone() -> None:
    assert made(STANDARD) == {"MessageBody": "{}"}


def test_a_delay_is_rounded_up() -> None:
    """C6: work never runs early, and the service counts whole seconds."""
    assert made(STANDARD, delay=timedelta(seconds=10.2))["DelaySeconds"] == 11


def test_the_key_is_what_a_fifo_queue_knows_work_by() -> None:
    """C10: by task and key; each piece is in a group of its own, so that none waits for another."""
    one, same, other = (made(FIFO, idempotency_key=key) for key in ("a", "a", "b"))

    request = tasks.other.options(idempotency_key="a").request("/nowhere")
    alien = message(request, b"{}", "mail.fifo", FIFO).entry

    assert one == same
    assert one["MessageDeduplicationId"] != alien["MessageDeduplicationId"]
    assert one["MessageDeduplicationId"] != other["MessageDeduplicationId"]
    assert one["MessageGroupId"] != other["MessageGroupId"]


@pytest.mark.parametrize("queue", ["mail", "mail.fifo"])
def test_the_group_of_a_request_wins(queue: str) -> None:
    options = SQSOptions(queue=queue, group="all")

    assert made(options)["MessageGroupId"] == "all"
    assert made(options, headers={"sqs-group": "user-7"})["MessageGroupId"] == "user-7"


def test_characters_that_the_service_refuses_are_escaped() -> None:
    """C5: U+FFFE and U+FFFF are JSON's and not the service's; the value is the same."""
    body = json.dumps({"text": "a\ufffe\\\uffffb"}, ensure_ascii=False).encode()

    text = made(STANDARD, body)["MessageBody"]

    assert not {"\ufffe", "\uffff"} & set(text)
    assert json.loads(text) == json.loads(body)


def test_the_largest_envelope_leaves_room_for_the_counts_of_its_retries() -> None:
    """C9: what was accepted can be tried again: the counts of a later attempt fit, too."""
    counts = DeliveryCount(999_999_999, 999_999_999, time.time())

    again = later(
        "x" * MAX_ENVELOPE, queue="u/q.fifo", counts=counts, after=9.0, group="g", source="m"
    )

    assert again.size <= MAX_SIZE


def test_too_large_a_message_is_rejected() -> None:
    with pytest.raises(RejectedError) as caught:
        made(STANDARD, b'"' + "é".encode() * (MAX_SIZE // 2) + b'"')

    assert caught.value.category is ErrorCategory.TOO_LARGE


def test_a_queue_of_the_other_kind_is_rejected() -> None:
    """C6: its dispatcher's capabilities are not that queue's."""
    with pytest.raises(RejectedError) as caught:
        made(STANDARD, queue="other.fifo")

    assert caught.value.category is ErrorCategory.UNSUPPORTED


def test_queues_of_two_kinds_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="of two kinds"):
        SQSDispatcher(queue="mail", queues=["low", "mail.fifo"])


def messages(*sizes: int, queues: str = "") -> list[Message]:
    names = queues or "a" * len(sizes)
    return [Message(name, {}, size) for name, size in zip(names, sizes, strict=True)]


def test_a_batch_is_ten_of_one_queue_and_one_mebibyte() -> None:
    half, packs = MAX_SIZE // 2, SQSDispatcher(queue="a", region=REGION)._packs

    assert packs(messages(*[1] * 12)) == [list(range(10)), [10, 11]]
    assert packs(messages(half, half, 1)) == [[0, 1], [2]]
    assert packs(messages(half, half + 1, half - 1)) == [[0], [1, 2]]
    assert packs(messages(1, 1, 1, queues="aba")) == [[0, 2], [1]]


def test_the_service_takes_what_is_packed(service: Service) -> None:
    """Twelve messages of which two fit into one call, among them one that is no work: in order."""
    queue = service.client.create_queue(QueueName="packed")["QueueUrl"]
    dispatcher = SQSDispatcher(
        queue="packed", region=REGION, endpoint=service.url, deadline=30.0, breaker=False
    )
    texts = [str(number) * 400_000 for number in range(5)]

    answers = tasks.note.options(dispatcher=dispatcher).batch()
    for text in texts:
        answers.add("/nowhere", text)
    found = answers.dispatch()
    dispatcher.close()

    assert found.ok
    assert all(
        text.encode() in body for text, body in zip(texts, service.held("packed"), strict=True)
    )
    service.client.delete_queue(QueueUrl=queue)


def read(entry: dict[str, Any], received: int) -> DeliveryCount:
    return counts_of(entry["MessageAttributes"], received)


def test_counts_travel() -> None:
    """C10: deliveries go on from those of the messages before; a new attempt begins anew."""
    entry = later(
        "{}", queue="u/q", counts=DeliveryCount(3, 2), after=7.5, group=None, source="m"
    ).entry

    assert (entry["DelaySeconds"], entry.get("MessageGroupId")) == (8, None)
    assert read(entry, 1) == DeliveryCount(3, 2)
    assert read(entry, 3) == DeliveryCount(3, 4)
    assert counts_of({}, 2) == DeliveryCount(1, 2)


@pytest.mark.parametrize(("queue", "after"), [("u/q", 901.0), ("u/q.fifo", 5.0)])
def test_what_the_service_cannot_hold_back_says_when_it_is_due(queue: str, after: float) -> None:
    """C10: the delivery that finds it early is none."""
    entry = later(
        "{}", queue=queue, counts=DeliveryCount(2, 1), after=after, group="g", source="m"
    ).entry

    early, due = read(entry, 1), read(entry, 2)

    assert 0 < early.wait <= after
    assert (early.deliveries, due.deliveries, due.attempt) == (1, 1, 2)


def test_a_retry_that_is_sent_twice_is_known_by_a_fifo_queue() -> None:
    def known(attempt: int) -> str:
        counts = DeliveryCount(attempt, 1)
        entry = later("{}", queue="u/q.fifo", counts=counts, after=0, group="g", source="m").entry
        return str(entry["MessageDeduplicationId"])

    assert known(2) == known(2) != known(3)
