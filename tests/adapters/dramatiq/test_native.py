"""Dramatiq's own actors, dispatched to by name; and what a broker's tools may see of ours."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import dramatiq
import pytest
from dispatchers_dramatiq import DramatiqDispatcher, native, register
from dramatiq.brokers.stub import StubBroker
from dramatiq.encoder import PickleEncoder

from dispatchers import ConfigurationError, override, task
from dispatchers.testing import Journal, tasks


@pytest.fixture
def broker() -> Any:
    found: Any = StubBroker()

    @dramatiq.actor(broker=found, actor_name="shop.add", queue_name="native", max_retries=0)
    def add(x: int, y: int) -> None:
        if y < 0:
            raise ValueError("negative")

    return found


def worked_off(broker: Any, queue: str) -> None:
    """What a user's test does with a stub broker."""
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    try:
        broker.join(queue, timeout=30_000, fail_fast=False)
        worker.join()
    finally:
        worker.stop()


def test_its_message_is_the_one_that_send_writes(broker: Any) -> None:
    """The arguments are the actor's own, and nothing of ours is in the message."""
    with override(default=DramatiqDispatcher(broker=broker)):
        response = native(broker.actors["shop.add"]).dispatch(1, y=2).raise_for_error()

    message = dramatiq.Message.decode(broker.queues["native"].get())
    assert (message.args, message.kwargs) == ((1,), {"y": 2})
    assert message.actor_name == "shop.add"
    assert message.message_id == response.task_id
    assert not [name for name in message.options if name.startswith("dispatchers")]
    assert "max_retries" not in message.options


def test_an_actor_runs_it(broker: Any) -> None:
    """By name, in Dramatiq's worker; a failure is Dramatiq's."""
    with override(default=DramatiqDispatcher(broker=broker)):
        native("shop.add", queue="native").dispatch(1, 2).raise_for_error()
        failed = native("shop.add", queue="native").dispatch(1, -2).raise_for_error()
    worked_off(broker, "native")

    assert [letter.message_id for letter in broker.dead_letters] == [failed.task_id]


def test_values_that_json_would_change_are_refused(broker: Any) -> None:
    """C1, C5: Dramatiq's encoder would raise: an answer, and nothing is sent."""
    with override(default=DramatiqDispatcher(broker=broker)):
        response = native("shop.add").dispatch(datetime.now(UTC), 2)

    assert response.status == "rejected"
    assert response.error is not None
    assert response.error.category == "invalid"


def test_an_eager_stub_broker_runs_it_in_the_call(broker: Any) -> None:
    """`eager`: executed; a failing actor is an answer, never an exception."""
    with override(default=DramatiqDispatcher(broker=broker, eager=True)):
        good = native("shop.add", queue="native").dispatch(1, 2)
        bad = native("shop.add", queue="native").dispatch(1, -2)
        unknown = native("shop.subtract", queue="native").dispatch(1, 2)

    assert good.status == "executed"
    assert bad.status == "failed"
    assert isinstance(bad.exception, ValueError)
    assert unknown.status == "rejected"


def test_an_eager_stub_broker_runs_async_actors_too(broker: Any) -> None:
    """C3: where no worker, and so no event loop of Dramatiq's, was ever started."""
    notes: list[int] = []

    async def noted(text: str) -> None:
        await asyncio.sleep(0)
        notes.append(int(text))

    dramatiq.actor(noted, broker=broker, actor_name="shop.noted")
    with override(default=DramatiqDispatcher(broker=broker, eager=True)):
        good = native("shop.noted", queue="native").dispatch("5")
        bad = native("shop.noted", queue="native").dispatch("five")
        under_loop = asyncio.run(native("shop.noted", queue="native").adispatch("6"))

    assert [good.status, bad.status, under_loop.status] == ["executed", "failed", "executed"]
    assert notes == [5, 6]


def test_a_task_beside_an_actor_of_the_same_name(broker: Any, tmp_path: Any) -> None:
    """While a code base moves: each kind of message finds its own function."""
    journal = Journal(tmp_path / "journal")

    @task(name="shop.add")
    def add(path: str) -> None:
        Journal(path).write("ours")

    dispatcher = DramatiqDispatcher(broker=broker, queue="native")
    register(broker, dispatcher)
    add.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()
    broker.actors["shop.add"].send(1, 2)
    worked_off(broker, "native")

    assert journal.texts == ["ours"]
    assert broker.dead_letters == []


def test_the_payload_is_nowhere_in_a_workers_words(
    broker: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """C4: neither Dramatiq's log, every level of it, nor the message's own `repr` shows it."""
    journal = Journal(tmp_path / "journal")
    dispatcher = DramatiqDispatcher(broker=broker, queue="native")
    register(broker, dispatcher)
    with caplog.at_level(logging.DEBUG):
        work = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
        work.dispatch(journal.path, 9).raise_for_error()
        worked_off(broker, "native")

    (dead,) = broker.dead_letters
    assert journal.path not in caplog.text + repr(dead) + str(dead)
    assert journal.path in dead.received.body


def test_pickled_messages_are_refused(broker: Any) -> None:
    """C5, C12: nothing is ever pickled, and the start-up check says so."""
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(PickleEncoder())
    dispatcher = DramatiqDispatcher(broker=broker, queue="native")
    try:
        response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
        with pytest.raises(ConfigurationError, match="set a JSONEncoder"):
            dispatcher.check()
    finally:
        dramatiq.set_encoder(before)

    assert response.status == "rejected"
    assert response.error is not None
    assert response.error.category == "configuration"


def test_the_brokers_of_several_dispatchers_do_not_meet(broker: Any) -> None:
    """Actors belong to a broker, not to the process."""
    other = StubBroker()
    one, two = (DramatiqDispatcher(broker=each, queue="q", alias="x") for each in (broker, other))
    register(broker, one)
    register(other, two)

    tasks.note.options(dispatcher=one).dispatch("/nowhere").raise_for_error()

    assert broker.queues["q"].qsize() == 1
    assert "q" not in other.queues
