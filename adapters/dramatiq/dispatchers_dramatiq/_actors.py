"""The worker's side: each of our tasks is an actor under its own name."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from dramatiq import Actor, Broker, Middleware
from dramatiq.common import q_name
from dramatiq.middleware import TimeLimit, TimeLimitExceeded

from dispatchers import (
    Action,
    DeadLetter,
    Outcome,
    catalogue,
    classify,
    get_dispatcher,
    run_envelope,
)

from ._dispatcher import DramatiqDispatcher
from ._message import Packet, Received
from ._place import kind_of
from ._receiving import PAUSE, RUNNER, Line, RabbitReceiving, Receiving, StubReceiving

__all__ = ["Registration", "register"]

log = logging.getLogger("dispatchers")
LOOK = 250
"""Milliseconds between two looks at what is delayed."""
FOR_EVER = float("inf")
"""Dramatiq's way to say that an actor has no time limit: dramatiq 2.2, `TimeLimit`."""
Source = Callable[[], DramatiqDispatcher]


def register(broker: Broker, dispatcher: DramatiqDispatcher | str = "default") -> None:
    """Let the workers of a Dramatiq broker run every task that is declared with `@task`.

    Call it once, where the broker is made. The actors are there when a worker starts, those of
    tasks that are declared later, in modules that the worker imports, among them.

    Args:
        broker: The broker.

        dispatcher: Through which further attempts are published: one of `dramatiq`, or its alias.
    """
    classify(TimeLimitExceeded, "transient")
    found = next((each for each in broker.middleware if isinstance(each, Registration)), None)
    if found is None:
        found = Registration(broker)
        broker.add_middleware(found)
    found.dispatcher = dispatcher


class Registration(Middleware):
    """What a broker knows of our tasks.

    Args:
        broker: The broker; its `consume` is taken over.
    """

    def __init__(self, broker: Any) -> None:
        self.dispatcher: DramatiqDispatcher | str = "default"
        self.lines: dict[str, Line] = {}
        """By queue: what was received and is not settled."""
        self._broker = broker
        self._names: set[str] = set()
        self._current = threading.local()
        self._stopping = threading.Event()
        self._substitute: DramatiqDispatcher | None = None
        self._consume = broker.consume
        broker.consume = self.consume

    def source(self) -> DramatiqDispatcher:
        """The dispatcher; one of the broker alone, where the configuration names none of it."""
        named = self.dispatcher
        found = get_dispatcher(named) if isinstance(named, str) else named
        if isinstance(found, DramatiqDispatcher) and found.place.broker is self._broker:
            return found
        if self._substitute is None:
            options = found.options if isinstance(found, DramatiqDispatcher) else None
            settings = {"broker": self._broker, "url": None} if options else {}
            self._substitute = DramatiqDispatcher(
                options, alias="dramatiq", **(settings or {"broker": self._broker})
            )
        return self._substitute

    # Dramatiq's signals.

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        """Every task gets its actor, and every queue of the configuration its consumer."""
        del worker
        self._stopping.clear()
        self.add_all(broker)

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """For `current_run().should_stop`."""
        del broker, worker
        self._stopping.set()

    def before_process_message(self, broker: Any, message: Any) -> None:
        """An actor is called with arguments alone; ours want the message."""
        del broker
        self._current.message = message

    # Actors.

    def add_all(self, broker: Any) -> None:
        """Declare an actor for each task that has none yet."""
        place = self.source().place
        for name in place.own:
            broker.declare_queue(name)
        self._add(RUNNER, place.default_queue, FOR_EVER)
        for task in catalogue.all():
            limit = task.time_limit * 1000 if task.time_limit else FOR_EVER
            for name in (task.name, *task.former_names):
                self._add(name, task.policy.queue or place.default_queue, limit)

    def _add(self, name: str, queue: str, limit: float) -> None:
        if name in self._broker.actors:  # ours already, or somebody's: ours go to the runner then
            return
        self._names.add(name)
        Actor(
            partial(self._called, name),
            broker=self._broker,
            actor_name=name,
            queue_name=queue,
            priority=0,
            options={"time_limit": limit, "retry_when": None, "notify_shutdown": False},
        )

    def _called(self, name: str, *args: Any, **kwargs: Any) -> None:
        message: Any = getattr(self._current, "message", None)
        received = getattr(message, "received", None)
        if received is None:
            _plain(name, args, kwargs)
            return
        try:
            self._run(received, message)
        except Exception:
            raise
        except BaseException:
            message.back = True  # whatever ends the thread or the process: it is run again
            raise

    def _run(self, received: Received, message: Any) -> None:
        try:
            dispatcher = self.source()
        except Exception:
            log.exception("this worker cannot run work of dispatchers")
            time.sleep(PAUSE)
            message.back = True
            return
        outcome = run_envelope(
            received.body.encode(),
            attempt=received.attempt,
            deliveries=received.deliveries,
            settings=dispatcher.run_settings,
            stopping=self._stopping.is_set,
        )
        if outcome.action is not Action.DONE:
            self._unlimited()
            _follow(outcome, received, message, dispatcher)

    def _unlimited(self) -> None:
        """The run is over: what follows from it is not interrupted."""
        for each in self._broker.middleware:
            if isinstance(each, TimeLimit):
                each.manager.remove_timeout(threading.get_ident())

    # Consumers.

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Receiving:
        """In place of the broker's own."""
        delayed = queue_name != q_name(queue_name)
        inner = self._consume(queue_name, prefetch, min(timeout, LOOK) if delayed else timeout)
        found = self._receiving(queue_name, inner)
        self.lines[queue_name] = found.line
        return found

    def _receiving(self, queue: str, inner: Any) -> Receiving:
        kind = kind_of(self._broker)
        if kind == "rabbitmq":
            hold = self.source().place.max_hold
            return RabbitReceiving(inner, self.source, self._names, hold, self._stopping.is_set)
        if kind == "stub":
            return StubReceiving(inner, self.source, self._names, FOR_EVER, self._stopping.is_set)
        from ._receiving_redis import RedisLine, RedisReceiving

        line = self.lines.get(queue)
        return RedisReceiving(
            inner,
            self.source,
            self._names,
            broker=self._broker,
            stopping=self._stopping.is_set,
            line=line if isinstance(line, RedisLine) else RedisLine(),
        )


def _plain(name: str, args: Any, kwargs: Any) -> None:
    """A message of the task's former life: plain arguments, Dramatiq's own `send`."""
    found = catalogue.get(name).function(*args, **kwargs)
    if inspect.iscoroutine(found):
        asyncio.run(found)


def _follow(
    outcome: Outcome, received: Received, message: Any, dispatcher: DramatiqDispatcher
) -> None:
    """Do what an outcome asks for; Dramatiq settles the delivery when this returns or raises."""
    due = time.time() + outcome.after if outcome.after > 0 else 0.0
    match outcome.action:
        case Action.RETRY:
            again = received.packet(attempt=outcome.attempt + 1, deliveries=1, due=due)
            _publish(again, message, dispatcher)
        case Action.RETURN:
            _publish(received.packet(due=due), message, dispatcher)
        case Action.DEAD:
            _bury(outcome, received, message, dispatcher)
        case Action.DONE:
            return


def _publish(packet: Packet, message: Any, dispatcher: DramatiqDispatcher) -> None:
    """Publish and see it confirmed; where that fails, this delivery goes back (C9)."""
    failed = dispatcher.publish([packet])[0]
    if failed is not None:
        log.error("the next attempt could not be published: %s", type(failed).__name__)
        _back(message)


def _back(message: Any) -> None:
    time.sleep(PAUSE)  # no hot loop
    message.back = True


def _bury(
    outcome: Outcome, received: Received, message: Any, dispatcher: DramatiqDispatcher
) -> None:
    """The letter is stored before the delivery is settled; else the delivery goes back (C9).

    What is raised here ends in Dramatiq's own queue of dead letters.
    """
    letters = dispatcher.letters
    if letters is not None:
        try:
            letters.add(_letter(outcome, received))
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            log.error("a dead letter could not be stored: %s", type(exc).__name__)  # noqa: TRY400
            _back(message)
            return
    message.fail()
    if isinstance(outcome.exception, Exception):
        raise outcome.exception
    raise TaskFailedError(outcome.reason.value) from outcome.exception


def _letter(outcome: Outcome, received: Received) -> DeadLetter:
    return DeadLetter.of(
        outcome,
        received.body.encode(),
        id=outcome.request_id or received.id,
        task=received.task,
        queue=received.queue,
        deliveries=received.deliveries,
    )


class TaskFailedError(Exception):
    """The work failed for good, for a reason other than an exception of its handler."""
