"""Brokers in this process have locks, which a child that is forked meanwhile must find free."""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
from celery import Celery
from dispatchers_celery import CeleryDispatcher
from dispatchers_dramatiq import DramatiqDispatcher
from dramatiq.brokers.stub import StubBroker
from kombu.transport.memory import Channel

from dispatchers import BaseDispatcher, DispatchResponse, ErrorCategory
from dispatchers.testing import tasks
from dispatchers.testing.conformance._tools import in_child, refused_with

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it cannot fork")

HELD = 0.2
"""Seconds that a thread is in the midst of putting a message into a queue."""


class SlowQueue(queue.Queue[Any]):
    """A queue whose lock is held long enough to fork meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.Event()

    def _put(self, item: Any) -> None:
        if not self.inside.is_set():
            self.inside.set()
            time.sleep(HELD)
        super()._put(item)


def of_celery(slow: SlowQueue) -> BaseDispatcher:
    name = f"forks-{uuid4().hex}"
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = name
    Channel.queues[name] = slow
    return CeleryDispatcher(app=app)


def of_dramatiq(slow: SlowQueue) -> BaseDispatcher:
    broker = StubBroker()
    broker.declare_queue("forks")
    broker.queues["forks"] = slow
    return DramatiqDispatcher(broker=broker, queue="forks")


@pytest.mark.parametrize("made", [of_celery, of_dramatiq])
def test_a_child_forked_while_a_message_is_put_can_dispatch(
    made: Callable[[SlowQueue], BaseDispatcher], tmp_path: Path
) -> None:
    """C8: the lock of a queue in memory is free in the child."""
    slow = SlowQueue()
    dispatcher = made(slow)
    request = tasks.note.request(str(tmp_path / "journal"))
    thread = threading.Thread(target=dispatcher.dispatch, args=(request,))
    thread.start()
    assert slow.inside.wait(10)

    said = in_child(lambda: dispatcher.dispatch(request).status.value)
    thread.join()
    dispatcher.close()

    assert said == "accepted"


class InterruptedQueue(queue.Queue[Any]):
    """A queue that a signal interrupts, once, while its lock is held."""

    was_interrupted = False

    def _put(self, item: Any) -> None:
        if not self.was_interrupted:
            self.was_interrupted = True
            signal.raise_signal(signal.SIGUSR1)
        super()._put(item)


@pytest.mark.parametrize("made", [of_celery, of_dramatiq])
def test_a_signal_handler_that_interrupts_a_put_is_answered(
    made: Callable[[Any], BaseDispatcher], tmp_path: Path
) -> None:
    """C8: it cannot have the lock of its own thread: its dispatch is rejected, and hangs not."""
    dispatcher = made(InterruptedQueue())
    request = tasks.note.request(str(tmp_path / "journal"))
    nested: list[DispatchResponse] = []

    before = signal.signal(signal.SIGUSR1, lambda *_: nested.append(dispatcher.dispatch(request)))
    try:
        answer = dispatcher.dispatch(request)
    finally:
        signal.signal(signal.SIGUSR1, before)
    after = dispatcher.dispatch(request)
    dispatcher.close()

    assert answer.ok
    refused_with(nested[0], ErrorCategory.CAPACITY)
    assert after.ok


def test_threads_that_declare_a_stub_queue_at_once_lose_nothing(tmp_path: Path) -> None:
    """C1: a queue that two threads would make is made once, with the work of both."""

    class Slow(dramatiq.Middleware):
        def before_declare_queue(self, broker: Any, queue_name: str) -> None:
            time.sleep(0.05)

    broker = StubBroker(middleware=[Slow()])
    dispatcher = DramatiqDispatcher(broker=broker, queue="forks")
    request = tasks.note.request(str(tmp_path / "journal"))
    threads = [threading.Thread(target=dispatcher.dispatch, args=(request,)) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)  # so that one declares while another's message is in
    for thread in threads:
        thread.join()
    dispatcher.close()

    assert broker.queues["forks"].qsize() == len(threads)
