"""The handler for AWS Lambda: events as Amazon documents them, a queue of the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dispatchers_sqs import SQSDispatcher, lambda_handler

from dispatchers import ConfigurationError, configure, get_dispatcher
from dispatchers.stores import dead_letters
from dispatchers.testing import tasks
from dispatchers.testing.journal import Journal

from .service import REGION, Service

ARN = f"arn:aws:sqs:{REGION}:123456789012:"


class Context:
    """What is left of the function's time, in milliseconds, each time that it is asked."""

    def __init__(self, *left: int) -> None:
        self.left = list(left)

    def get_remaining_time_in_millis(self) -> int:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


class Source:
    """An event source mapping: it receives, calls the handler, and deletes what did not fail."""

    def __init__(self, service: Service, folder: Path, suffix: str = "") -> None:
        self.service, self.client = service, service.client
        self.queue = f"lambda-{uuid4().hex[:12]}{suffix}"
        kind = {"FifoQueue": "true"} if suffix else {}
        self.url = self.client.create_queue(QueueName=self.queue, Attributes=kind)["QueueUrl"]
        self.letters = f"sqlite:{folder / 'dead.db'}"
        given = {"queue": self.queue, "region": REGION, "endpoint": service.url}
        options = {"backend": "sqs", "dead_letters": self.letters, "max_deliveries": 2, **given}
        configure({"targets": {"here": {"default": options}}}, target="here")
        self.dispatcher = get_dispatcher()

    def event(self) -> dict[str, Any]:
        found = self.client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return {"Records": [self._record(each) for each in found.get("Messages", ())]}

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        values = message.get("MessageAttributes", {})
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {
                name: {"stringValue": each["StringValue"], "dataType": each["DataType"]}
                for name, each in values.items()
            },
            "eventSource": "aws:sqs",
            "eventSourceARN": ARN + self.queue,
            "awsRegion": REGION,
        }

    def run(self, *left: int) -> list[bool]:
        """Whether each record of the next event was settled, in order."""
        event = self.event()
        answer = lambda_handler()(event, Context(*(left or (60_000,))))
        failed = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
        settled = [record["messageId"] not in failed for record in event["Records"]]
        for record, done in zip(event["Records"], settled, strict=True):
            if done:
                self.client.delete_message(QueueUrl=self.url, ReceiptHandle=record["receiptHandle"])
        return settled

    def held(self) -> int:
        return len(self.service.held(self.queue))


@pytest.fixture
def source(service: Service, tmp_path: Path) -> Source:
    return Source(service, tmp_path)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    get_dispatcher().close()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_what_ran_is_deleted(source: Source, journal: Journal) -> None:
    """C9: a batch of two, each with an outcome of its own."""
    for text in ("one", "two"):
        tasks.note.dispatch(journal.path, text).raise_for_error()

    assert source.run() == [True, True]
    assert (sorted(journal.texts), source.held()) == (["one", "two"], 0)


def test_a_retry_is_sent_before_its_record_ends(source: Source, journal: Journal) -> None:
    """C9, C10: attempts are counted apart from deliveries."""
    tasks.fail.dispatch(journal.path, 1).raise_for_error()

    assert source.run() == [True]
    assert source.run() == [True]
    assert [(each.text, each.attempt, each.deliveries) for each in journal.entries] == [
        ("failed", 1, 1),
        ("succeeded", 2, 1),
    ]
    assert source.held() == 0


def test_a_retry_that_cannot_be_sent_fails_its_record_alone(
    source: Source, journal: Journal
) -> None:
    """C9: Lambda keeps the message then."""
    tasks.fail.dispatch(journal.path, 1).raise_for_error()
    tasks.note.dispatch(journal.path, "good").raise_for_error()
    dispatcher: Any = source.dispatcher

    def broken(*_: object) -> None:
        raise OSError("no way out")

    dispatcher.broker.send_one = broken

    assert sorted(source.run()) == [False, True]
    assert source.held() == 1


def test_failed_work_is_dead_lettered(source: Source, journal: Journal) -> None:
    tasks.fail.options(max_attempts=1).dispatch(journal.path, 9).raise_for_error()

    assert source.run() == [True]
    assert len(list(dead_letters(source.letters).list())) == 1


def test_a_handler_that_exits_fails_its_record_alone(source: Source, journal: Journal) -> None:
    """C10: its delivery counts, and after `max_deliveries` it is dead."""
    tasks.leave.dispatch(journal.path).raise_for_error()
    tasks.note.dispatch(journal.path, "good").raise_for_error()

    assert sorted(source.run()) == [False, True]
    assert "good" in journal.texts


def test_records_that_there_is_no_time_for_come_again(source: Source, journal: Journal) -> None:
    """C9: nothing is begun in the last second of the function."""
    for _ in range(2):
        tasks.note.dispatch(journal.path).raise_for_error()

    assert source.run(500) == [False, False]
    assert journal.texts == []


def test_a_handler_sees_the_end_of_the_function(source: Source, journal: Journal) -> None:
    tasks.stay.dispatch(journal.path).raise_for_error()

    assert source.run(60_000, 60_000, 500) == [True]
    assert journal.texts == ["began", "ended"]


def test_what_follows_a_failure_in_its_group_waits(
    service: Service, tmp_path: Path, journal: Journal
) -> None:
    """The order of a FIFO queue: other groups go on."""
    source = Source(service, tmp_path, ".fifo")
    first = tasks.note.options(headers={"sqs-group": "a"})
    other = tasks.note.options(headers={"sqs-group": "b"})
    tasks.leave.options(headers={"sqs-group": "a"}).dispatch(journal.path).raise_for_error()
    first.dispatch(journal.path, "after").raise_for_error()
    other.dispatch(journal.path, "other").raise_for_error()

    settled = source.run()

    assert (settled, journal.texts) == ([False, False, True], ["leaves", "other"])


def test_work_that_is_early_is_hidden(service: Service, tmp_path: Path, journal: Journal) -> None:
    """A retry on a FIFO queue, which delays nothing."""
    source = Source(service, tmp_path, ".fifo")
    tasks.wait.dispatch(journal.path, 60.0).raise_for_error()

    assert source.run() == [True]
    assert source.run() == [False]
    assert (journal.texts, source.run(), source.held()) == (["ran"], [], 1)


def test_a_dispatcher_of_another_backend_is_refused(source: Source) -> None:
    configure({"targets": {"here": {"default": {"backend": "memory"}}}}, target="here")

    with pytest.raises(ConfigurationError, match="not of the backend 'sqs'"):
        lambda_handler()({"Records": []}, Context(1))
    assert not isinstance(get_dispatcher(), SQSDispatcher)
