"""Our tasks as a broker's actors, each under its own name."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Any

from dramatiq import Actor, Broker, Middleware
from dramatiq.common import q_name
from dramatiq.middleware import TimeLimitExceeded

from dispatchers import catalogue, classify
from dispatchers.delivery import say

from ._broker import kind_of
from ._consumer import (
    RETRY_DELAY,
    RUNNER,
    RabbitConsumer,
    StubConsumer,
    TaskConsumer,
    Unsettled,
)
from ._context import Context
from ._delivery import MessageDelivery, perform, skipped
from ._dispatcher import DramatiqDispatcher
from ._message import interrupted_after

POLL_INTERVAL = 250
"""Milliseconds between two looks at what is delayed."""
UNLIMITED = 0
"""AMQP's prefetch for any number: what is far away may not keep out what is due before."""
NO_LIMIT = float("inf")
"""Dramatiq's way to say that an actor has no time limit: dramatiq 2.2, `TimeLimit`."""


def register(broker: Broker, dispatcher: DramatiqDispatcher | str = "default") -> None:
    """Let the workers of a Dramatiq broker run every task that is declared with `@task`.

    Call it once, where the broker is made; nothing is connected or configured by it. The actors
    are there when a worker starts, those of tasks that are declared later among them.

    Args:
        broker: The broker.

        dispatcher: The one that publishes further attempts, a `dramatiq` one, or its alias.
    """
    classify(TimeLimitExceeded, "transient")
    found = next((each for each in broker.middleware if isinstance(each, Registration)), None)
    if found is None:
        found = Registration(broker)
        broker.add_middleware(found)
    found.context.named = dispatcher


class Registration(Middleware):
    """Our tasks at one broker.

    Args:
        broker: The broker; its `consume` is taken over.
    """

    def __init__(self, broker: Any) -> None:
        self.context = Context(broker)
        self.unsettled: dict[str, Unsettled] = {}
        """By queue: what was received and is not settled."""
        self._broker = broker
        self._current = threading.local()
        self._consume = broker.consume
        # Dramatiq has no hook for consumers: workers ask the broker's `consume` for them.
        broker.consume = self.consume

    # Dramatiq's signals.

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        """Give every task its actor, and every queue of the configuration its consumer."""
        del worker
        self.context.stopping.clear()
        self.context.is_over = False
        self.add_all(broker)

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Note it for `current_run().should_stop`."""
        del broker, worker
        self.context.stopping.set()

    def before_process_message(self, broker: Any, message: Any) -> None:
        """Note the message: an actor is called with arguments alone."""
        del broker
        self._current.message = message

    # Actors.

    def add_all(self, broker: Any) -> None:
        """Declare an actor for each task that has none yet."""
        configured = self.context.dispatcher().broker
        for name in configured.own:
            broker.declare_queue(name)
        self._add(RUNNER, configured.default_queue, NO_LIMIT)
        for task in catalogue.all():
            limit = interrupted_after(task.time_limit) if task.time_limit else NO_LIMIT
            for name in (task.name, *task.former_names):
                self._add(name, task.policy.queue or configured.default_queue, limit)

    def _add(self, name: str, queue: str, limit: float) -> None:
        if name in self._broker.actors:  # ours already, or the application's: ours go to RUNNER
            return
        self.context.actors.add(name)
        Actor(
            partial(self._called),
            broker=self._broker,
            actor_name=name,
            queue_name=queue,
            priority=0,
            options={"time_limit": limit, "retry_when": None, "notify_shutdown": False},
        )

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        message: Any = self._current.message
        try:
            delivery = MessageDelivery(message, self.context.dispatcher())
        except Exception as exc:
            say(logging.ERROR, "this worker cannot run work of dispatchers", exc_info=exc)
            time.sleep(RETRY_DELAY)
            message.back = True
            raise skipped(message, "it is given back") from exc
        self.context.running[id(message)] = message
        try:
            return perform(delivery, self.context.stopping.is_set)
        finally:
            del self.context.running[id(message)]

    # Consumers.

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> TaskConsumer:
        """Return our consumer in place of the broker's own."""
        kind = kind_of(self._broker)
        if queue_name != q_name(queue_name):
            # Delayed messages are looked at between two waits, so these must be short.
            timeout = min(timeout, POLL_INTERVAL)
            prefetch = UNLIMITED if kind == "rabbitmq" else prefetch
        inner = self._consume(queue_name, prefetch, timeout)
        found = self._consumer(kind, queue_name, inner)
        self.unsettled[queue_name] = found.unsettled
        return found

    def _consumer(self, kind: str | None, queue: str, inner: Any) -> TaskConsumer:
        if kind != "redis":
            consumer = RabbitConsumer if kind == "rabbitmq" else StubConsumer
            return consumer(inner, queue, self.context)
        from ._redis_consumer import RedisConsumer, RedisUnsettled

        left = self.unsettled.get(queue)
        # On Redis messages belong to the process: a new connection goes on with the same ones.
        kept = left if isinstance(left, RedisUnsettled) else RedisUnsettled()
        return RedisConsumer(inner, queue, self.context, kept, broker=self._broker)
