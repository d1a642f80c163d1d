"""Queues of a Dramatiq broker, stepped message by message through Dramatiq's own worker code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

import dramatiq
from dispatchers_dramatiq import DramatiqDispatcher, register
from dispatchers_dramatiq._broker import _with_virtual_host
from dispatchers_dramatiq._registration import Registration
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import dq_name, xq_name
from dramatiq.worker import ConsumerThread, WorkerThread

from dispatchers import BaseDispatcher, ErrorCategory
from dispatchers.testing import Harness

__all__ = ["RabbitHarness", "RedisHarness", "StubHarness"]

WAIT = 10
"""Milliseconds that a consumer waits for a message."""
PREFETCH = 1000


class Steps:
    """A worker whose threads do not run: its consumers fetch, and its work is done, when told."""

    def __init__(self, broker: Any, queue: str, dispatcher: DramatiqDispatcher) -> None:
        self.broker = broker
        register(broker, dispatcher)
        self.registration = next(m for m in broker.middleware if isinstance(m, Registration))
        self.worker: Any = dramatiq.Worker(broker, worker_threads=1, worker_timeout=WAIT)
        broker.emit_before("worker_boot", self.worker)
        self.consumers: dict[str, Any] = {}
        for name in (queue, dq_name(queue)):
            thread = ConsumerThread(
                broker=broker,
                queue_name=name,
                prefetch=PREFETCH,
                work_queue=self.worker.work_queue,
                worker_timeout=WAIT,
            )
            thread.consumer = broker.consume(name, PREFETCH, WAIT)
            self.consumers[name] = thread
        self.thread = WorkerThread(
            broker=broker,
            consumers=self.consumers,
            work_queue=self.worker.work_queue,
            worker_timeout=WAIT,
        )

    def fetch(self) -> None:
        """Everything that is there, unsettled."""
        for thread in self.consumers.values():
            while not self._is_empty(thread):
                pass

    def _is_empty(self, thread: Any) -> bool:
        arrive(thread.consumer.inner, thread.queue_name)
        before = len(thread.consumer.unsettled.held)
        message = next(thread.consumer)
        if message is not None:
            thread.handle_message(message)
        return message is None and len(thread.consumer.unsettled.held) == before

    def run_next(self) -> Any:
        self.fetch()
        try:
            item = self.worker.work_queue.get_nowait()
        except Empty:
            return None
        self.thread.process_message(message_of(item))
        return item

    def messages(self) -> list[Any]:
        self.fetch()
        waiting = [message_of(item) for item in self.worker.work_queue.queue]
        for thread in self.consumers.values():
            waiting += [each[2] for each in thread.consumer.unsettled.delayed]
        return waiting

    def close(self) -> None:
        for thread in self.consumers.values():
            with contextlib.suppress(Exception):
                thread.consumer.close()


def message_of(item: Any) -> Any:
    """Return the message of an entry of the work queue: a pair before Dramatiq 2.1."""
    return item[1] if isinstance(item, tuple) else item.message


def arrive(inner: Any, queue: str) -> None:
    """RabbitMQ: what lies in the queue is sent before a later question is answered."""
    if channel := getattr(inner, "channel", None):
        channel.queue_declare(queue, passive=True)


class DramatiqHarness(Harness):
    """One queue, and a worker in steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = f"conformance-{uuid4().hex}"
        self.broker = self.new_broker()
        self.steps: Steps | None = None
        self.others: list[str] = []

    def queue_name(self, name: str) -> str:
        self.others.append(f"{self.queue}-{name}")
        return self.others[-1]

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        if not self.has("network"):
            return
        host, port = self.upstream
        scheme = "redis" if isinstance(self.broker, RedisBroker) else "amqp"
        url = f"{scheme}://guest:wrong@{host}:{port}/"
        wrong = DramatiqDispatcher(url=url, queue=self.queue, breaker=False, deadline=self.deadline)
        yield self.keep(wrong), ErrorCategory.AUTHENTICATION

    def new_broker(self) -> Any:
        raise NotImplementedError

    def make_dispatcher(self, **options: Any) -> DramatiqDispatcher:
        return DramatiqDispatcher(broker=self.broker, **{"queue": self.queue, **options})

    def _steps(self, dispatcher: Any) -> Steps:
        if self.steps is None:
            self.steps = Steps(self.broker, self.queue, dispatcher)
        register(self.broker, dispatcher)
        return self.steps

    def received(self, dispatcher: BaseDispatcher) -> list[bytes]:
        messages = self._steps(dispatcher).messages()
        return [message.received.body.encode() for message in messages]

    def run_next(self, dispatcher: BaseDispatcher) -> object:
        return self._steps(dispatcher).run_next()

    def crash(self, dispatcher: BaseDispatcher) -> None:
        """The worker has a message in hand, and is gone."""
        steps = self._steps(dispatcher)
        while not steps.messages():
            pass
        self.die(steps)
        self.steps = None

    def die(self, steps: Steps) -> None:
        raise NotImplementedError

    def close(self) -> None:
        if self.steps is not None:
            self.steps.close()
        self.broker.close()


class RedisHarness(DramatiqHarness):
    """A namespace of its own: a dead worker is found by what others do there."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.namespace = f"dramatiq-{uuid4().hex}"
        super().__init__(folder)

    def new_broker(self, url: str = "") -> Any:
        return RedisBroker(url=url or self.url, namespace=self.namespace)

    @property
    def upstream(self) -> tuple[str, int]:
        place = self.broker.client.connection_pool.connection_kwargs
        return "127.0.0.1", place.get("port", 6379)

    def connect(self, host: str, port: int, **options: Any) -> DramatiqDispatcher:
        broker = self.new_broker(f"redis://{host}:{port}/0")
        return DramatiqDispatcher(broker=broker, **{"queue": self.queue, **options})

    def die(self, steps: Steps) -> None:
        """Another worker sees no heartbeat of it; the dispatchers stay with the broker."""
        broker = self.broker
        broker.client.zadd(f"{self.namespace}:__heartbeats__", {broker.broker_id: 1})
        broker.broker_id = str(uuid4())
        steps.registration.unsettled.clear()

    def dead(self, dispatcher: BaseDispatcher) -> list[bytes]:
        found = self.broker.client.hvals(f"{self.namespace}:{self.queue}.XQ.msgs")
        return [dramatiq.Message.decode(each).options["dispatchers"].encode() for each in found]

    def close(self) -> None:
        super().close()
        client = self.broker.client
        for key in client.scan_iter(f"{self.namespace}:*"):
            client.delete(key)
        client.close()


class RabbitHarness(DramatiqHarness):
    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        super().__init__(folder)

    def new_broker(self, **parameters: Any) -> Any:
        return RabbitmqBroker(url=_with_virtual_host(self.url))

    @property
    def upstream(self) -> tuple[str, int]:
        return "127.0.0.1", self.broker.parameters.port

    def connect(self, host: str, port: int, **options: Any) -> DramatiqDispatcher:
        credentials = self.broker.parameters.credentials
        address = f"{credentials.username}:{credentials.password}@{host}:{port}"
        return DramatiqDispatcher(url=f"amqp://{address}", **{"queue": self.queue, **options})

    def die(self, steps: Steps) -> None:
        for thread in steps.consumers.values():
            thread.consumer.inner.connection.close()

    def dead(self, dispatcher: BaseDispatcher) -> list[bytes]:
        """Looked at, and left there."""
        channel = self.broker.connection.channel()
        found = []
        while True:
            method, _, body = channel.basic_get(xq_name(self.queue))
            if method is None:
                channel.close()
                return found
            found.append(dramatiq.Message.decode(body).options["dispatchers"].encode())

    def close(self) -> None:
        if self.steps is not None:
            self.steps.close()
            self.steps = None
        channel = self.broker.connection.channel()
        for queue in (self.queue, *self.others):
            for name in (queue, dq_name(queue), xq_name(queue)):
                channel.queue_delete(name)
        super().close()


class StubHarness(DramatiqHarness):
    without = {
        "network": "the stub broker is in this process",
        "stall": "the stub broker waits for nobody",
        "processes": "the stub broker is in this process",
        "crash": "work in memory dies with its process",
    }

    def new_broker(self) -> Any:
        return StubBroker()

    def dead(self, dispatcher: BaseDispatcher) -> list[bytes]:
        return [m.received.body.encode() for m in self.broker.dead_letters]
