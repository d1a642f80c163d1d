"""Many dispatches at once, over those of the native clients, on the same server, in turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import uuid4

from dispatchers import task
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.null import NullDispatcher
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.testing.servers import RabbitMQServer, RedisServer

from ._measure import Figure, ratio
from .tasks import small

COROUTINES = 200
EACH = 5
"""Dispatches of one coroutine in a turn, one after the other."""
THREADS = 20
ROUNDS = 7
Sync = Callable[[], Any]
Async = Callable[[], Awaitable[Any]]


@task(name="bench.awaited")
async def awaited(number: int, text: str) -> None:
    pass


def one_after_the_other() -> Iterator[Figure]:
    """`adispatch` over `dispatch`, without company."""
    for dispatcher, work in (
        (InlineDispatcher(), awaited),
        (NullDispatcher(), small),
        (MemoryDispatcher(), small),
    ):
        yield _alone(dispatcher, work, at_most=2.0, each=1000)
    with TemporaryDirectory() as folder, RedisServer(keeps="nothing") as server:
        made = SQLiteDispatcher(path=Path(folder) / "queue.db", deadline=30.0)
        yield _alone(made, small, at_most=1.3, each=100)
        made.close()
        for dispatcher in _on_redis(server.url):
            yield _alone(dispatcher, small, at_most=1.3, each=100)
            dispatcher.close()


def _alone(dispatcher: Any, work: Any, *, at_most: float, each: int) -> Figure:
    bound = work.options(dispatcher=dispatcher)

    def sync() -> float:
        return _seconds(lambda: bound.dispatch(number=1, text="abc"), each)

    def on_loop() -> float:
        return asyncio.run(_aseconds(lambda: bound.adispatch(number=1, text="abc"), each))

    plain, looped = _in_turns(sync, on_loop)
    case = f"{dispatcher.name}: `adispatch` over `dispatch`, one after the other"
    return ratio(case, at_most, looped, plain)


def coroutines() -> Iterator[Figure]:
    """200 coroutines on one loop over saq, taskiq and 20 threads of the clients' own."""
    with RedisServer(keeps="nothing") as server:
        url = server.url
        rq, celery, dramatiq = _on_redis(url)
        ours: list[Callable[[], Turn]] = [lambda d=d: _loop(d) for d in (rq, celery, dramatiq)]  # type: ignore[misc]
        found = _in_turns(
            *(lambda turn=turn: turn().each for turn in ours),  # type: ignore[misc]
            lambda: _saq(url),
            lambda: _taskiq(url),
            lambda: _threaded(_delay(url)),
        )
        best, saq, taskiq, delay = min(found[:3]), *found[3:]
        yield ratio("redis: 200 coroutines, the best of ours over saq's `enqueue`", 0.5, best, saq)
        yield ratio("the same over taskiq's `kiq`", 0.5, best, taskiq)
        yield ratio("celery/redis: 200 coroutines over 20 threads of `delay`", 0.2, found[1], delay)
        yield from (_fairness(dispatcher) for dispatcher in (rq, celery, dramatiq))
        for dispatcher in (rq, celery, dramatiq):
            dispatcher.close()
    with RabbitMQServer() as server:
        made = _celery(server.url)
        confirmed = {"broker_transport_options": {"confirm_publish": True}}
        loop, delay = _in_turns(
            lambda: _loop(made).each, lambda: _threaded(_delay(server.url, **confirmed))
        )
        yield ratio("celery/rabbitmq: 200 coroutines over 20 threads of `delay`", 0.2, loop, delay)
        yield _fairness(made)
        made.close()
    with TemporaryDirectory() as folder:
        made = SQLiteDispatcher(path=Path(folder) / "queue.db", deadline=30.0)
        each = median(_loop(made).each for _ in range(ROUNDS)) * 1e6
        detail = f"{1e6 / each:.0f}/s, full sync"
        yield Figure("sqlite: 200 coroutines, time of each", 100.0, each, detail, unit=" us")
        yield _fairness(made)
        made.close()


def threads() -> Iterator[Figure]:
    """20 threads of ours over 20 of the native client."""
    with RedisServer(keeps="nothing") as server:
        rq, celery, dramatiq = _on_redis(server.url)
        for dispatcher, case, native in (
            (rq, "rq: 20 threads over 20 of `enqueue`", _enqueue(server.url)),
            (celery, "celery/redis: 20 threads over 20 of `delay`", _delay(server.url)),
            (dramatiq, "dramatiq/redis: 20 threads over 20 of `send`", _sender(server.url)),
        ):
            yield _beside(case, dispatcher, native)
    with RabbitMQServer() as server:
        confirmed = {"broker_transport_options": {"confirm_publish": True}}
        case = "celery/rabbitmq: 20 threads over 20 of `delay`"
        yield _beside(case, _celery(server.url), _delay(server.url, **confirmed))


def _beside(case: str, dispatcher: Any, native: Sync) -> Figure:
    bound = small.options(dispatcher=dispatcher)
    ours, theirs = _in_turns(
        lambda: _threaded(lambda: bound.dispatch(number=1, text="abc").raise_for_error()),
        lambda: _threaded(native),
    )
    dispatcher.close()
    return ratio(case, 1 / 3, ours, theirs)


# Ours.


def _on_redis(url: str) -> tuple[Any, Any, Any]:
    from dispatchers_dramatiq import DramatiqDispatcher
    from dispatchers_rq import RQDispatcher

    rq = RQDispatcher(url=url, queue=_queue(), deadline=30.0)
    return rq, _celery(url), DramatiqDispatcher(url=url, queue=_queue(), deadline=30.0)


def _celery(url: str) -> Any:
    from dispatchers_celery import CeleryDispatcher

    return CeleryDispatcher(url=url, queue=_queue(), deadline=30.0)


def _queue() -> str:
    return f"bench-{uuid4().hex}"


# The peers.


def _saq(url: str) -> float:
    queue: Any = import_module("saq").Queue.from_url(url, name=_queue())

    async def main() -> float:
        await queue.connect()
        try:
            return (await _at_once(lambda: queue.enqueue("small", number=1, text="abc"))).each
        finally:
            await queue.disconnect()

    return asyncio.run(main())


def _taskiq(url: str) -> float:
    broker: Any = import_module("taskiq_redis").ListQueueBroker(url, queue_name=_queue())

    @broker.task(task_name="small")
    async def plain(number: int, text: str) -> None:
        del number, text

    async def main() -> float:
        await broker.startup()
        try:
            return (await _at_once(lambda: plain.kiq(number=1, text="abc"))).each
        finally:
            await broker.shutdown()

    return asyncio.run(main())


def _delay(url: str, **settings: Any) -> Sync:
    app: Any = import_module("celery").Celery("bench", broker=url, set_as_current=False)
    app.conf.update(task_default_queue=_queue(), task_ignore_result=True, **settings)
    plain = app.task(name="bench.plain")(_nothing)
    return lambda: plain.delay(1, "abc")


def _enqueue(url: str) -> Sync:
    serializer = import_module("rq.serializers").JSONSerializer
    connection = import_module("redis").Redis.from_url(url)
    queue: Any = import_module("rq").Queue(_queue(), connection=connection, serializer=serializer)
    return lambda: queue.enqueue("benchmarks._rq_worker.bare", 1, "abc")


def _sender(url: str) -> Sync:
    broker: Any = import_module("dramatiq.brokers.redis").RedisBroker(url=url)
    actor: Any = import_module("dramatiq").actor(
        _nothing, broker=broker, actor_name=_queue(), queue_name=_queue()
    )
    return lambda: actor.send(1, "abc")


def _nothing(number: int, text: str) -> None:
    del number, text


# Timing.


class Turn:
    """Seconds of each of many that were under way at once, and how long they took."""

    def __init__(self, seconds: float, taken: list[float]) -> None:
        self.each = seconds / len(taken)
        taken.sort()
        self.spread = taken[int(len(taken) * 0.99)] / taken[len(taken) // 2]


async def _at_once(call: Async) -> Turn:
    taken: list[float] = []

    async def caller() -> None:
        for _ in range(EACH):
            started = perf_counter()
            await call()
            taken.append(perf_counter() - started)

    await call()  # connects
    started = perf_counter()
    await asyncio.gather(*(caller() for _ in range(COROUTINES)))
    return Turn(perf_counter() - started, taken)


def _loop(dispatcher: Any) -> Turn:
    bound = small.options(dispatcher=dispatcher)

    async def call() -> None:
        (await bound.adispatch(number=1, text="abc")).raise_for_error()

    return asyncio.run(_at_once(call))


def _fairness(dispatcher: Any) -> Figure:
    spread = median(_loop(dispatcher).spread for _ in range(ROUNDS))
    case = f"{dispatcher.name}: 200 coroutines, the time of the slowest hundredth over the median"
    return Figure(case, 3.0, spread, "")


def _threaded(call: Sync) -> float:
    """Seconds of each of 20 threads' calls."""
    start, calls = threading.Barrier(THREADS + 1), 20

    def caller() -> None:
        call()  # connects
        start.wait()
        for _ in range(calls):
            call()

    callers = [threading.Thread(target=caller) for _ in range(THREADS)]
    for each in callers:
        each.start()
    start.wait()
    started = perf_counter()
    for each in callers:
        each.join()
    return (perf_counter() - started) / (THREADS * calls)


def _in_turns(*turns: Callable[[], float]) -> list[float]:
    """The medians of several, each in its turn."""
    for turn in turns:
        turn()
    rounds = [[turn() for turn in turns] for _ in range(ROUNDS)]
    return [median(column) for column in zip(*rounds, strict=True)]


def _seconds(call: Sync, calls: int) -> float:
    started = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - started) / calls


async def _aseconds(call: Async, calls: int) -> float:
    started = perf_counter()
    for _ in range(calls):
        await call()
    return (perf_counter() - started) / calls
