"""The worker: what it holds, what it gives up, and what is left when it dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dispatchers_sqs import SQSDispatcher
from dispatchers_sqs._worker import SQSWorker

from dispatchers import WorkerOptions
from dispatchers.testing import tasks
from dispatchers.testing.journal import Journal
from dispatchers.testing.processes import wait_until

from .service import REGION, Service

SHOP = Path(__file__).parents[3] / "examples" / "shop"


class Place:
    """A queue and a dispatcher of it."""

    def __init__(self, service: Service, suffix: str = "", **options: Any) -> None:
        self.service = service
        self.queue = f"worker-{uuid4().hex[:12]}{suffix}"
        kind = {"FifoQueue": "true"} if suffix else {}
        self.url = service.client.create_queue(QueueName=self.queue, Attributes=kind)["QueueUrl"]
        self.options = {"queue": self.queue, "region": REGION, "endpoint": service.url, "poll": 1}
        self.dispatcher = SQSDispatcher(breaker=False, **{**self.options, **options})
        self.worker = SQSWorker(self.dispatcher, WorkerOptions())

    def held(self) -> list[bytes]:
        return self.service.held(self.queue)

    def close(self) -> None:
        self.dispatcher.close()
        self.worker._broker.close()


@pytest.fixture
def place(service: Service) -> Iterator[Place]:
    found = Place(service)
    yield found
    found.close()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def dead_queue(place: Place, most: int = 10) -> str:
    """Give the queue a dead-letter queue, and return its name."""
    name = f"{place.queue}-dead"
    url = place.service.client.create_queue(QueueName=name)["QueueUrl"]
    names = place.service.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    policy = {
        "deadLetterTargetArn": names["Attributes"]["QueueArn"],
        "maxReceiveCount": str(most),
    }
    place.service.client.set_queue_attributes(
        QueueUrl=place.url, Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    return name


def failing(place: Place, journal: Journal) -> None:
    task = tasks.fail.options(dispatcher=place.dispatcher, max_attempts=1)
    task.dispatch(journal.path, 9).raise_for_error()


def test_without_a_store_the_queues_own_dead_letter_queue_has_failed_work(
    place: Place, journal: Journal
) -> None:
    """C9: it is there before the queue forgets it."""
    name = dead_queue(place)
    failing(place, journal)
    (body,) = place.held()

    place.worker.step(1)

    assert (place.held(), place.service.held(name)) == ([], [body])


def test_failed_work_stays_where_its_dead_letter_queue_is_gone(
    place: Place, journal: Journal
) -> None:
    """C9: a dead letter that cannot be sent settles nothing."""
    name = dead_queue(place)
    place.service.client.delete_queue(QueueUrl=place.url.replace(place.queue, name))
    failing(place, journal)

    place.worker.step(1)

    assert len(place.held()) == 1


def test_without_either_failed_work_ends(place: Place, journal: Journal) -> None:
    failing(place, journal)

    place.worker.step(1)

    assert place.held() == []


def test_work_that_is_early_is_hidden_until_it_is_due(service: Service, journal: Journal) -> None:
    """C10: a FIFO queue delays nothing; the delivery that finds it early does not count."""
    place = Place(service, ".fifo")
    tasks.wait.options(dispatcher=place.dispatcher).dispatch(journal.path, 1.0).raise_for_error()

    first, early, due = (place.worker.step(wait) for wait in (1, 0, 5))
    place.close()

    assert (first is None, early, due is None) == (False, None, False)
    assert [(each.attempt, each.deliveries) for each in journal.entries] == [(1, 1), (2, 1)]


def test_a_message_that_is_gone_is_lost(place: Place, journal: Journal) -> None:
    """C10: the lease of a message that another has settled cannot be renewed."""
    tasks.note.options(dispatcher=place.dispatcher).dispatch(journal.path)
    work = place.worker._take(1)
    assert work is not None
    place.service.client.purge_queue(QueueUrl=place.url)

    assert place.worker._renew(work) is False


def test_figures_are_the_services_own(place: Place, journal: Journal) -> None:
    for delay in (None, None, timedelta(minutes=5)):
        task = tasks.note.options(dispatcher=place.dispatcher)
        (task.options(delay=delay) if delay else task).dispatch(journal.path).raise_for_error()
    assert place.worker._take(1) is not None

    (found,) = place.dispatcher.stats()

    assert (found.waiting, found.running, found.delayed) == (1, 1, 1)


def test_a_redrive_policy_that_gives_up_before_we_do_is_told(place: Place) -> None:
    """C12: by `doctor --contact`."""
    place.dispatcher.check(contact=True)
    before = place.dispatcher.warnings
    dead_queue(place, most=2)

    place.dispatcher.check(contact=True)

    assert (before, len(place.dispatcher.warnings)) == ((), 1)
    assert "maxReceiveCount" in place.dispatcher.warnings[0]


def test_every_queue_has_its_turn(service: Service, journal: Journal) -> None:
    """A queue that is never empty holds no other up."""
    second = Place(service)
    place = Place(service, queues=(second.queue,))
    for queue in (place.queue, place.queue, second.queue):
        note = tasks.note.options(dispatcher=place.dispatcher, queue=queue)
        note.dispatch(journal.path, queue).raise_for_error()

    place.worker.step(), place.worker.step()
    place.close()
    second.close()

    assert sorted(journal.texts) == sorted((place.queue, second.queue))


@pytest.mark.slow
def test_a_long_run_keeps_its_message(service: Service, journal: Journal) -> None:
    """C10: no second run begins while the first one's worker renews what it holds."""
    place = Place(service, lease=1)
    tasks.sleep.options(dispatcher=place.dispatcher).dispatch(journal.path, 3.0).raise_for_error()
    thread = threading.Thread(target=place.worker.step, args=(1,))
    thread.start()
    wait_until(lambda: place.dispatcher.stats()[0].running == 1, "nobody has it")

    taken = []
    while thread.is_alive():
        taken.append(place.worker._take(1))
    place.close()

    assert (set(taken), journal.texts, place.held()) == ({None}, ["slept"], [])


@contextmanager
def started(place: Place, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The worker of the command line, in a process of its own."""
    file = folder / "dispatchers.toml"
    options = {**place.options, "backend": "sqs", "lease": 1}
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    start = 'tasks = ["dispatchers.testing.tasks"]\n[targets.here.default]\n'
    file.write_text(start + "\n".join(lines))
    command = ["worker", "--config", str(file), "--target", "here"]
    process = subprocess.Popen([sys.executable, "-m", "dispatchers", *command])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(
    place: Place, journal: Journal, tmp_path: Path
) -> None:
    """C9, C10: `kill -9` in mid-run, as the block ends: the same attempt is delivered again."""
    tasks.linger.options(dispatcher=place.dispatcher).dispatch(journal.path).raise_for_error()
    with started(place, tmp_path):
        wait_until(lambda: journal.texts == ["began"], "the worker did not begin")

    journal.release()
    wait_until(lambda: place.worker.step(1) is not None, "it did not come again")

    last = journal.entries[-1]
    assert (last.text, last.attempt, last.deliveries) == ("ended", 1, 2)
    assert place.held() == []


@pytest.mark.slow
def test_a_worker_outlives_its_server(journal: Journal) -> None:
    """C9: a lost server is waited for, and what comes after its return is run."""
    with Service() as service:
        place = Place(service)
        service.queues = (place.queue,)
        worker = SQSWorker(place.dispatcher, WorkerOptions())
        thread = threading.Thread(target=worker.run)
        thread.start()
        note = tasks.note.options(dispatcher=place.dispatcher)
        note.dispatch(journal.path, "before").raise_for_error()
        wait_until(lambda: journal.texts == ["before"], "it did not run")

        service.kill()
        assert not note.dispatch(journal.path, "meanwhile")
        service.start()
        note.dispatch(journal.path, "after").raise_for_error()
        wait_until(lambda: journal.texts == ["before", "after"], "it does not run again")
        worker.stop()
        thread.join()
        worker._broker.close()
        place.close()


def test_a_next_attempt_that_cannot_be_sent_leaves_the_first(
    place: Place, journal: Journal
) -> None:
    """C9: the retry is confirmed before this delivery is settled; else the lease runs out."""
    tasks.fail.options(dispatcher=place.dispatcher).dispatch(journal.path, 9).raise_for_error()

    def broken(*_: object) -> None:
        raise OSError("no way out")

    place.worker._broker.send_one = broken  # type: ignore[method-assign]
    place.worker.step(1)

    assert (journal.texts, len(place.held())) == (["failed"], 1)


@pytest.mark.slow
def test_the_shop_runs_on_it(place: Place, tmp_path: Path) -> None:
    """`examples/shop`, by its target `sqs`; a mail's second attempt is a second later."""
    shop = shutil.copytree(SHOP, tmp_path / "shop")
    prefix = "DISPATCHERS_TARGETS__SQS__DEFAULT__"
    names = {f"{prefix}{name.upper()}": str(place.options[name]) for name in ("queue", "endpoint")}
    environment = {**os.environ, **names, "DISPATCHERS_TARGET": "sqs"}

    def said(*command: str) -> str:
        words = [sys.executable, "-m", *command]
        return subprocess.run(
            words, cwd=shop, env=environment, check=True, capture_output=True, text=True
        ).stdout

    placed = said("shop", "order", "3")
    while place.held():
        said("dispatchers", "worker", "--drain")

    assert placed.split() == ["accepted"] * 3
    assert said("shop", "report") == "3 orders, 59.70 in all; 3 mails, attempt 2\n"
