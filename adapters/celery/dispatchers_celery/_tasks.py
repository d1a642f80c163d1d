"""The worker's side: each of our tasks is a Celery task under its own name."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps, signals
from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry

from dispatchers import (
    Action,
    DeadLetter,
    Outcome,
    RejectedError,
    catalogue,
    get_dispatcher,
    run_envelope,
    run_settings,
)

from ._dispatcher import CeleryDispatcher
from ._message import Delivery, Received, is_ours, message_again
from ._shutdown import shutdown

__all__ = ["register"]

log = logging.getLogger("dispatchers")
PAUSE = 1.0
"""Seconds before a delivery goes back whose next attempt could not be published: no hot loop."""
EARLY = 1.0
"""Seconds that work may come too soon, as clocks differ, without being handed back."""

Source = Callable[[], CeleryDispatcher]


def register(app: Celery, dispatcher: CeleryDispatcher | str = "default") -> None:
    """Let the workers of a Celery application run every task that is declared with `@task`.

    Call it once, where the application is made. Tasks that are declared later, in modules that the
    worker imports, are there when the worker starts.

    Args:
        app: The application.

        dispatcher: Through which further attempts are published: one of `celery`, or its alias.
    """

    def source() -> CeleryDispatcher:
        found = get_dispatcher(dispatcher) if isinstance(dispatcher, str) else dispatcher
        if not isinstance(found, CeleryDispatcher):
            return _substitute(app)
        return found

    untyped: Any = app

    def add_all(**_: object) -> None:
        _add_all(untyped, source)

    untyped.steps["consumer"].add(_step(source))
    add_all()
    for signal, sender in (
        (untyped.on_after_finalize, None),
        (signals.import_modules, app),
        (signals.worker_init, None),
    ):
        signal.connect(add_all, sender=sender, weak=False)
    signals.worker_init.connect(shutdown.prepare)
    signals.worker_shutting_down.connect(shutdown.begin)


_substitutes: dict[int, CeleryDispatcher] = {}


def _substitute(app: Celery) -> CeleryDispatcher:
    """For a process whose configuration names no dispatcher of `celery`: one of the app alone."""
    key = id(app)
    if key not in _substitutes:
        _substitutes[key] = CeleryDispatcher(app=app, alias=app.main or "celery")
    return _substitutes[key]


def _add_all(app: Any, source: Source) -> None:
    for task in catalogue.all():
        for name in (task.name, *task.former_names):
            if name not in app._tasks:
                _add(app, name, source)


def _add(app: Any, name: str, source: Source) -> None:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        headers = {**(self.request.headers or {}), **vars(self.request)}
        if not is_ours(headers):
            return _plain(name, args, kwargs)
        info = self.request.delivery_info or {}
        return _run(Received.read(str(args[0]), headers, info), _found(source))

    app.task(
        run,
        name=name,
        bind=True,
        lazy=False,
        acks_late=True,
        reject_on_worker_lost=True,
        acks_on_failure_or_timeout=False,  # a failure goes to the queue's dead-letter exchange
        ignore_result=True,
        typing=False,
        max_retries=None,
        shared=False,
    )


def _found(source: Source) -> CeleryDispatcher:
    """The dispatcher; a worker that is configured wrongly gives its work back."""
    try:
        return source()
    except Exception as exc:
        log.exception("this worker cannot run work of dispatchers")
        time.sleep(PAUSE)
        raise Reject(reason="the worker is configured wrongly", requeue=True) from exc


def _plain(name: str, args: Any, kwargs: Any) -> Any:
    """A message of the task's former life: plain arguments, Celery's own `.delay()` and beat."""
    return catalogue.get(name).function(*args, **kwargs)


def _run(received: Received, dispatcher: CeleryDispatcher) -> None:
    delivery = received.delivery
    if delivery.wait > EARLY:
        _publish(received, delivery, dispatcher)
        raise Ignore
    if received.uncounted:
        _count(received, dispatcher)
    outcome = run_envelope(
        received.body,
        attempt=delivery.attempt,
        deliveries=delivery.deliveries,
        settings=run_settings(dispatcher.options),
        stopping=shutdown.has_begun,
    )
    _follow(outcome, received, dispatcher)


def _count(received: Received, dispatcher: CeleryDispatcher) -> None:
    """Count a delivery that a broker only flags: a copy with the number takes its place."""
    delivery = received.delivery
    again = delivery._replace(deliveries=delivery.deliveries + 1)
    _publish(received, again, dispatcher)
    raise Ignore


def _follow(outcome: Outcome, received: Received, dispatcher: CeleryDispatcher) -> None:
    """Do what an outcome asks for; Celery settles the delivery when this returns or raises."""
    delivery = received.delivery.held_back(outcome.after)
    match outcome.action:
        case Action.DONE:
            return
        case Action.RETRY:
            again = delivery._replace(attempt=outcome.attempt + 1, deliveries=1)
            _publish(received, again, dispatcher)
            raise CeleryRetry(message=outcome.reason.value, when=outcome.after)
        case Action.RETURN:
            _publish(received, delivery, dispatcher)
            raise Ignore
        case Action.DEAD:
            _bury(outcome, received, dispatcher)


def _publish(received: Received, delivery: Delivery, dispatcher: CeleryDispatcher) -> None:
    """Publish and see it confirmed; where that fails, this delivery goes back (C9)."""
    message = message_again(dispatcher.application, received, delivery)
    try:
        failed = dispatcher.publish([message], timeout=dispatcher.options.deadline)[0]
    except RejectedError as exc:
        failed = exc
    if failed is not None:
        log.error("the next attempt could not be published: %s", type(failed).__name__)
        time.sleep(PAUSE)
        raise Reject(reason="the next attempt could not be published", requeue=True)


def _bury(outcome: Outcome, received: Received, dispatcher: CeleryDispatcher) -> None:
    """The letter is stored before the delivery is settled; else the delivery goes back (C9)."""
    letters = dispatcher.letters
    if letters is not None:
        try:
            letters.add(_letter(outcome, received))
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            log.error("a dead letter could not be stored: %s", type(exc).__name__)  # noqa: TRY400
            time.sleep(PAUSE)
            raise Reject(reason="the dead letter could not be stored", requeue=True) from None
    raise outcome.exception or TaskFailedError(outcome.reason.value)


def _letter(outcome: Outcome, received: Received) -> DeadLetter:
    return DeadLetter.of(
        outcome,
        received.body,
        id=outcome.request_id or received.id,
        task=received.task,
        queue=received.queue,
        deliveries=received.delivery.deliveries,
    )


class TaskFailedError(Exception):
    """The work failed for good, for a reason other than an exception of its handler."""


def _step(source: Source) -> type:
    """A part of the worker that handles messages of ours whose task nobody here has."""

    class UnknownTasks(bootsteps.Step):
        requires = ("celery.worker.consumer.connection:Connection",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            native = parent.on_unknown_task

            def on_unknown_task(body: Any, message: Any, exc: Exception) -> None:
                if not is_ours(message.headers):
                    native(body, message, exc)
                    return
                _unknown(message, source())

            parent.on_unknown_task = on_unknown_task

    return UnknownTasks


def _unknown(message: Any, dispatcher: CeleryDispatcher) -> None:
    """Hand it back for a while, then dead-letter it: never drop it as Celery does (C11)."""
    try:
        text = str(message.decode()[0][0])
        _run(Received.read(text, message.headers, message.delivery_info), dispatcher)
    except Reject:
        message.reject(requeue=True)
    except Exception:  # noqa: BLE001 - Ignore and what follows a dead letter: it is settled
        message.ack()
    else:
        message.ack()
