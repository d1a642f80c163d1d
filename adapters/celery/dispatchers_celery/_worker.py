"""The worker's side: our tasks in a Celery application, and `dispatchers worker`."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery, bootsteps, signals
from celery.exceptions import Reject
from celery.worker import state

from dispatchers import ConfigurationError, WorkerOptions, catalogue, get_dispatcher
from dispatchers.delivery import (
    act_by_default,
    acted_in_fork,
    own_handler,
    say,
    stopped_by_signals,
)

from ._delivery import RETRY_DELAY, run, run_here
from ._dispatcher import CeleryDispatcher
from ._message import Received, is_ours
from ._pool import end_runs, keep_begun, received_of
from ._shutdown import shutdown

__all__ = ["CeleryWorker", "add_tasks", "register"]

POLL_INTERVAL = 0.5
"""Seconds between two looks at the work that is left."""
MOVE_INTERVAL = 0.25
"""Seconds between two looks at delayed messages in a Redis."""
SIGNAL_SKEW = 0.5
"""Seconds between the signals that the processes of one group get."""
PRIVATE_PARTS: tuple[tuple[str, ...], ...] = (
    ("celery.worker.consumer.consumer:Consumer.on_unknown_task", "self", "body", "message", "exc"),
    ("celery.worker.consumer.consumer:Consumer.create_task_handler", "self", "promise"),
    ("celery.worker.state:should_stop",),
    ("celery.worker.state:should_terminate",),
    ("celery.apps.worker:Worker.install_platform_tweaks", "self", "worker"),
    ("celery.app.task:Context.as_execution_options",),
    ("celery.concurrency.asynpool:AsynPool.flush", "self"),
    ("celery.worker.state:active_requests",),
    ("celery.worker.request:Request.acknowledge", "self"),
    ("celery.worker.request:Request.acknowledged",),
    ("billiard.pool:ApplyResult._accepted",),
    ("billiard.pool:ApplyResult._write_to",),
)
"""Parts of Celery that it does not promise; docs/private-parts.md has the list."""
REDIS_PARTS: tuple[tuple[str, ...], ...] = (
    ("kombu.transport.redis:Channel._brpop_start", "self", "timeout"),
    ("kombu.transport.redis:Channel._brpop_read", "self", "options"),
    ("kombu.transport.redis:Channel._put", "self", "queue", "message"),
    ("kombu.transport.redis:Channel._q_for_pri", "self", "queue", "pri"),
    ("kombu.transport.redis:Channel._get_message_priority", "self", "message", "reverse"),
    ("kombu.transport.redis:Channel._queue_cycle",),
    ("kombu.transport.redis:Channel._in_poll",),
    ("kombu.transport.redis:Channel._brpop_sent_at",),
    ("kombu.transport.redis:Channel.unacked_key",),
    ("kombu.transport.redis:Channel.unacked_index_key",),
    ("kombu.transport.redis:Channel.global_keyprefix",),
    ("kombu.transport.redis:Channel.connection_class",),
    ("kombu.transport.redis:Channel.connection_class_ssl",),
    ("kombu.transport.redis:Channel.conn_or_acquire", "self", "client"),
    ("kombu.transport.virtual.base:Transport._deliver", "self", "message", "queue"),
)

Source = Callable[[], CeleryDispatcher]
# Weak, so that registering does not keep an application alive that a test has dropped.
_registered: WeakKeyDictionary[Celery, Callable[..., None]] = WeakKeyDictionary()
_substitutes: WeakKeyDictionary[Celery, CeleryDispatcher] = WeakKeyDictionary()


def register(app: Celery, dispatcher: CeleryDispatcher | str = "default") -> None:
    """Let the workers of a Celery application run every task that is declared with `@task`.

    Call it once, where the application is made. Nothing of the application is configured or
    finalized by it; tasks that are declared later are there when the worker starts.

    Args:
        app: The application.

        dispatcher: Through which further attempts are published: one of `celery`, or its alias.
    """

    def source() -> CeleryDispatcher:
        found = get_dispatcher(dispatcher) if isinstance(dispatcher, str) else dispatcher
        return found if isinstance(found, CeleryDispatcher) else _substitute(app)

    def add_all(**_: object) -> None:
        for task in catalogue.all():
            for name in (task.name, *task.former_names):
                found = untyped.tasks.get(name)
                if found is None:
                    _add(untyped, name, source, task.policy.queue)
                elif getattr(found, "dispatchers", None) is None:
                    _warn_of_both(name)

    untyped: Any = app
    _registered[app] = add_all
    # Bootsteps are Celery's documented way into a worker, and last as long as the application.
    untyped.steps["consumer"].add(_work_of_ours(source))
    if untyped.finalized:
        add_all()
    for sent, sender in (
        (untyped.on_after_finalize, None),
        (signals.import_modules, app),
        (signals.worker_init, None),
    ):
        # Each may be the last moment before tasks are looked up; adding twice does nothing.
        sent.connect(add_all, sender=sender, weak=False)
    signals.worker_init.connect(shutdown.prepare)
    signals.worker_shutting_down.connect(shutdown.begin)


def add_tasks(app: Celery) -> None:
    """Add the tasks that were declared since the application was finalized."""
    if (add_all := _registered.get(app)) is not None:
        add_all()


def _substitute(app: Celery) -> CeleryDispatcher:
    """Make one of the application alone, where the configuration names none of `celery`."""
    if app not in _substitutes:
        _substitutes[app] = CeleryDispatcher(app=app, alias=app.main or "celery")
    return _substitutes[app]


@cache
def _warn_of_both(name: str) -> None:
    say(
        logging.ERROR,
        "task %r is defined twice, by @task and as Celery's own: its workers run Celery's, which"
        " cannot read our messages; remove Celery's, our workers take its former messages as well",
        name,
    )


def _add(app: Any, name: str, source: Source, queue: str | None) -> None:
    def work(self: Any, *args: Any, **kwargs: Any) -> Any:
        received = Received.read(self.request, name, args, kwargs)
        is_here = self.request.is_eager or self.request.called_directly
        return (run_here if is_here else run)(received, _found(source))

    made = app.task(
        work,
        name=name,
        bind=True,
        lazy=False,
        # Acknowledged after the run, else a worker that dies has lost what it was running (C9).
        acks_late=True,
        reject_on_worker_lost=True,
        acks_on_failure_or_timeout=False,  # a failure goes to the queue's dead-letter exchange
        typing=False,
        max_retries=None,
        dispatchers=True,  # tells ours from others of the same name
        shared=False,
    )
    # For `delay`, chains and beat, as in its former life; as an option it is a warning, Celery 5.7.
    made.queue = queue


def _found(source: Source) -> CeleryDispatcher:
    """Return the dispatcher; a worker that is configured wrongly gives its work back."""
    try:
        return source()
    except Exception as exc:
        say(logging.ERROR, "this worker cannot run work of dispatchers", exc_info=exc)
        # The message comes back at once: without a pause the worker would spin.
        time.sleep(RETRY_DELAY)
        raise Reject(reason="the worker is configured wrongly", requeue=True) from exc


def _work_of_ours(source: Source) -> type:
    """Make the part of a worker that handles what Celery has no word for.

    That is messages of ours whose task it does not have, and delayed ones in a Redis.
    """

    class WorkOfOurs(bootsteps.StartStopStep):
        # After the consumer of tasks: to its queues messages are moved that are due.
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._timer: Any = None
            # Wrapped, not subclassed: an application may name a consumer class of its own.
            parent.on_unknown_task = partial(_handle_unknown, source, parent.on_unknown_task)
            parent.create_task_handler = partial(_guarded, parent, parent.create_task_handler)

        def start(self, parent: Any) -> None:
            keep_begun(parent.pool)
            if source().broker.uses_redis:
                move = (parent,)
                self._timer = parent.timer.call_repeatedly(MOVE_INTERVAL, _move_due, move)

        def stop(self, parent: Any) -> None:
            if self._timer is not None:
                self._timer.cancel()

    return WorkOfOurs


def _guarded(parent: Any, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return Celery's handler of messages; one that it cannot read would end the worker, each."""
    handle = make(*args, **kwargs)
    errors = (*parent.connection_errors, *parent.channel_errors)

    def handle_any(message: Any) -> None:
        try:
            handle(message)
        except errors:
            raise
        except Exception as exc:
            if message.acknowledged:
                raise
            _set_aside(message, exc)

    return handle_any


def _set_aside(message: Any, exc: Exception) -> None:
    """Take what is not ours out of the way: RabbitMQ has dead-letter exchanges, Redis a list."""
    queue = (message.delivery_info or {}).get("routing_key")
    words = "queue %r held something that is not a message of Celery's (%s): it is set aside"
    say(logging.ERROR, words, queue, type(exc).__name__)
    if hasattr(message.channel, "conn_or_acquire"):
        from ._redis_consumer import keep_foreign

        keep_foreign(message, str(queue))
    message.reject(requeue=False)


def _handle_unknown(
    source: Source, native: Callable[..., None], body: Any, message: Any, exc: Exception
) -> None:
    if is_ours(message.headers):
        _run_unknown(message, source())
    else:
        native(body, message, exc)


def _run_unknown(message: Any, dispatcher: CeleryDispatcher) -> None:
    """Hand it back for a while, then dead-letter it: never drop it as Celery does (C11)."""
    try:
        run(received_of(message), dispatcher)
    except Reject:
        message.reject(requeue=True)
    except Exception:  # noqa: BLE001 - Ignore and what follows a dead letter: it is settled
        message.ack()
    else:
        message.ack()


def _move_due(parent: Any) -> None:
    from ._redis_consumer import move_due

    try:
        move_due(
            parent.connection.default_channel, [queue.name for queue in parent.task_consumer.queues]
        )
    except Exception as exc:  # noqa: BLE001 - a worker's loop survives it
        say(logging.ERROR, "delayed work could not be looked at: %s", type(exc).__name__)


class CeleryWorker:
    """Celery's worker in this process, its pool in children.

    Args:
        dispatcher: The dispatcher whose work it runs.

        options: The options of the worker.

    Raises:
        ConfigurationError: This Celery or kombu lacks what a safe worker needs.
    """

    def __init__(self, dispatcher: CeleryDispatcher, options: WorkerOptions) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._app = dispatcher.broker.app
        self._stopped = False
        self._gave_up = False
        parts = PRIVATE_PARTS + (REDIS_PARTS if dispatcher.broker.uses_redis else ())
        refuse_changed(parts)

    def run(self) -> int:
        """Work until stopped."""
        register(self._app, self._dispatcher)
        if self._dispatcher.broker.uses_redis:
            from ._redis_consumer import take_safely

            take_safely(self._app)
            self._dispatcher.broker.verify_certificates()
        # Not when the process begins: billiard installs handlers of its own after that signal.
        signals.task_prerun.connect(leave_ending_to_the_worker)
        keep_logging()
        with stopped_by_signals(self.stop):
            worker = self._worker()
            threading.Thread(target=self._end_in_time, daemon=True).start()
            if self._options.drain:
                threading.Thread(target=self._stop_when_empty, daemon=True).start()
            if not self._stopped:
                worker.start()
        return int(worker.exitcode or self._gave_up)

    def _worker(self) -> Any:
        worker = self._app.Worker(
            # A second worker of one name would answer for the first, and take its mailbox.
            hostname=f"dispatchers-{os.getpid()}@{socket.gethostname()}",
            concurrency=self._options.concurrency,
            queues=self._queues() or None,
            loglevel="WARNING",
            quiet=True,
            # Gossip and mingle exchange state with all other workers, which nothing here needs.
            without_gossip=True,
            without_mingle=True,
            # A process gets a message only when it is free: none waits behind a long run.
            optimization="fair",
            prefetch_multiplier=1,
        )
        worker.install_platform_tweaks = partial(_with_our_signals, worker.install_platform_tweaks)
        return worker

    def stop(self) -> None:
        """Finish what runs, then end; what runs longer than the grace goes back.

        Only sets flags: it is called in a signal handler.
        """
        self._stopped = True
        state.should_stop = 0
        shutdown.begin()

    def _end_in_time(self) -> None:
        """Give back what still runs when the grace is over, and kill it."""
        while not self._stopped:
            time.sleep(POLL_INTERVAL)
        time.sleep(self._options.grace)
        shutdown.begin("Cold")
        self._gave_up = end_runs(self._dispatcher) > 0
        state.should_terminate = 0

    def _queues(self) -> list[str]:
        if self._options.queues:
            return list(self._options.queues)
        own = self._dispatcher.options
        return [name for name in dict.fromkeys((own.queue, *own.queues)) if name]

    def _stop_when_empty(self) -> None:
        """Stop when queues and worker have been empty twice in a row."""
        empty = 0
        while empty < 2:  # noqa: PLR2004 - a message may be between queue and worker
            time.sleep(POLL_INTERVAL)
            empty = empty + 1 if not (self._is_busy() or self._waiting()) else 0
        self.stop()

    def _is_busy(self) -> bool:
        return bool(state.reserved_requests or state.active_requests)

    def _waiting(self) -> int:
        names = self._queues() or sorted(self._dispatcher.broker.known)
        sizes = self._dispatcher.publisher.sizes(names, self._dispatcher.options.deadline)
        return sum(size for size, _ in sizes.values())


def _with_our_signals(native: Callable[[Any], None], worker: Any) -> None:
    """Install Celery's signal handlers but those that end a worker: its SIGINT exits with 1."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    native(worker)
    for number, handler in before.items():
        signal.signal(number, handler)


def leave_ending_to_the_worker(**_: object) -> None:
    """Ignore SIGTERM in a pool's process while its worker ends, which lets runs finish.

    A supervisor signals every process of the group; Celery's would be killed in mid-run.
    """
    if shutdown.is_in_child():
        handler = own_handler(partial(_on_sigterm, os.getpid()))
        signal.signal(signal.SIGTERM, handler)


def _on_sigterm(process: int, number: int, frame: object) -> None:
    del frame
    if acted_in_fork(process, number):
        return
    until = time.monotonic() + SIGNAL_SKEW
    while not shutdown.has_begun() and time.monotonic() < until:
        time.sleep(0.01)
    if not shutdown.has_begun() or shutdown.is_cold():  # this process alone is meant
        act_by_default(number)


def keep_logging() -> None:
    """Keep the logging that command line or project have set up: Celery would replace it."""
    if not signals.setup_logging.receivers:
        signals.setup_logging.connect(_logging_is_set_up)
    celery = logging.getLogger("celery")
    if celery.level == logging.NOTSET:
        celery.setLevel(logging.WARNING)  # two lines for each task, beside our own
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what tasks print is seen at once


def _logging_is_set_up(**settings: Any) -> None:
    settings = {name: settings.get(name) for name in ("loglevel", "logfile", "format", "colorize")}
    signals.after_setup_logger.send(sender=None, logger=logging.getLogger(), **settings)


def refuse_changed(parts: tuple[tuple[str, ...], ...]) -> None:
    """Refuse to work with a Celery or kombu whose private parts are other than we know.

    Raises:
        ConfigurationError: One is missing, or takes other arguments.
    """
    from dispatchers.testing import Canary

    problems = [found for part in parts if (found := Canary(*part).problem())]
    if problems:
        raise ConfigurationError(
            "this worker could lose work with the installed Celery or kombu: "
            f"{'; '.join(problems)}; use versions that dispatchers was tested with: "
            "pip install --upgrade 'dispatchers[celery]'"
        )
