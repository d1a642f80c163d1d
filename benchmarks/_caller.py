"""A process that makes calls while a broker fails.

`python -m benchmarks._caller SIDE URL QUEUE` says when it is ready, waits for a line, makes a call,
and says in JSON what came of it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from . import _caller_django as _others

Call = Callable[[], str]


def celery(url: str, queue: str) -> Call:
    from celery import Celery

    app: Any = Celery("faults", broker=url, set_as_current=False)
    app.conf.update(task_default_queue=queue, task_ignore_result=True)
    nothing = app.task(name="faults.nothing")(_nothing)

    def call() -> str:
        nothing.delay()
        return "returned"

    return call


def rq(url: str, queue: str) -> Call:
    from redis import Redis
    from rq import Queue

    place = Queue(queue, connection=Redis.from_url(url))

    def call() -> str:
        place.enqueue("builtins.print")
        return "returned"

    return call


def dramatiq(url: str, queue: str) -> Call:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.brokers.redis import RedisBroker

    host = url.removesuffix("//") + "/%2F"  # pika's way to write the virtual host
    broker: Any = RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=host)
    actor: Any = dramatiq.actor(_nothing, broker=broker, actor_name="nothing", queue_name=queue)

    def call() -> str:
        actor.send()
        return "returned"

    return call


def _nothing() -> None: ...


def ours(backend: str, url: str, queue: str) -> Call:
    from dispatchers._config.registry import load_backend
    from dispatchers.testing import tasks

    options = _others.options_of_ours(backend, url, queue)
    kind: Any = load_backend(backend)
    bound = tasks.note.options(dispatcher=kind(**options, deadline=1.0, breaker=False))

    def call() -> str:
        response = bound.dispatch("/nowhere")
        return f"{response.status}" + (f", {response.error.category}" if response.error else "")

    return call


def _returning(make: Callable[[str, str], _others.Call]) -> Callable[[str, str], Call]:
    def made(url: str, queue: str) -> Call:
        call = make(url, queue)

        def called() -> str:
            call()
            return "returned"

        return called

    return made


RAW: dict[str, Callable[[str, str], Call]] = {
    "celery": celery,
    "rq": rq,
    "dramatiq": dramatiq,
    "django_q": _returning(_others.django_q),
    "django_rq": _returning(_others.django_rq),
    "django_tasks": _returning(_others.django_tasks),
    "sqs": _returning(_others.sqs),
}


def main() -> None:
    side, url, queue = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    if "silent" in url:
        from dispatchers.testing.faults import silent_names

        silent_names(10.0)
    who, _, backend = side.partition(":")
    _others.credentials()
    call = ours(backend, url, queue) if who == "ours" else RAW[backend](url, queue)
    if "invalid" not in url:
        call()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(call)), flush=True)
    os._exit(0)


def timed(call: Call) -> tuple[float, str]:
    started = perf_counter()
    try:
        said = call()
    except BaseException as exc:  # noqa: BLE001 - that is what is asked
        said = f"raised {type(exc).__name__}"
    return perf_counter() - started, said


if __name__ == "__main__":
    main()
