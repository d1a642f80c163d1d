"""Awaited dispatches on a thread, over the bare hop and over a client that needs no thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib import import_module
from statistics import median
from time import process_time
from typing import Any

from dispatchers_rq import RQDispatcher
from dispatchers_rq._scripts import DISPATCH

from dispatchers import BaseDispatcher, Capabilities, DispatchRequest, ErrorCategory, Sent
from dispatchers._dispatch.protocol import Item
from dispatchers.testing.servers import RedisServer

from ._measure import Figure, ratio
from .concurrency import COROUTINES, EACH, _queue
from .tasks import small

ROUNDS = 15
ALONE = 500
"""Calls of a turn, one after the other."""


class Shared(BaseDispatcher):
    """A client that takes no time, on a thread that coroutines share."""

    name = "shared"
    contract = 1
    shares_sending = True
    capabilities = Capabilities(batch=True, confirmed=True)

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return Sent(request.id)

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return [Sent(request.id) for request, _ in items]

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return True


class OnTheLoop(RQDispatcher):
    """`rq` with redis-py's asyncio client: a connection and a round trip for each dispatch."""

    shares_sending = False
    client: Any = None

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        job: Any = self._prepare(request, body)
        reply = await self.client.execute_command("EVALSHA", DISPATCH.sha, 0, *job.args)
        answer = self._result(request, reply, None)
        if isinstance(answer, Exception):
            raise answer
        return answer


def hop() -> Iterator[Figure]:
    """`adispatch` less `dispatch`, over handing nothing to a thread and back."""
    bound = small.options(dispatcher=Shared())

    async def awaited() -> None:
        await bound.adispatch(number=1, text="abc")

    async def bare() -> None:
        await asyncio.get_running_loop().run_in_executor(None, int)

    plain, ours, theirs = _in_turns(
        lambda: _used(lambda: [bound.dispatch(number=1, text="abc") for _ in range(ALONE)], ALONE),
        lambda: _looped(awaited, 1, ALONE),
        lambda: _looped(bare, 1, ALONE),
    )
    case = "awaited on a thread: `adispatch` less `dispatch`, over `run_in_executor` of nothing"
    detail = f"({ours:.2f} us - {plain:.2f} us) over {theirs:.2f} us, processor time"
    yield Figure(case, 2.0, (ours - plain) / theirs, detail)


def asyncio_client() -> Iterator[Figure]:
    """The shared line over redis-py's asyncio client, alone and many at once."""
    with RedisServer(keeps="nothing") as server:
        ours = RQDispatcher(url=server.url, queue=_queue(), deadline=30.0)
        theirs = OnTheLoop(url=server.url, queue=_queue(), deadline=30.0)
        small.options(dispatcher=ours).dispatch(number=1, text="abc")  # which loads the script
        for count, each, who in ((1, ALONE, "one"), (COROUTINES, EACH, "200")):
            shared, native = _in_turns(
                lambda c=count, e=each: _through(ours, c, e),  # type: ignore[misc]
                lambda c=count, e=each: _through(theirs, c, e),  # type: ignore[misc]
            )
            case = f"rq, {who} at a time: the shared line over redis-py's asyncio client"
            yield ratio(case, 1.0, shared / 1e6, native / 1e6)
        ours.close()


def _through(dispatcher: Any, count: int, each: int) -> float:
    bound = small.options(dispatcher=dispatcher)

    async def call() -> None:
        (await bound.adispatch(number=1, text="abc")).raise_for_error()

    async def main() -> float:
        if not isinstance(dispatcher, OnTheLoop):
            return await _many(call, count, each)
        place: Any = import_module("redis.asyncio").Redis
        dispatcher.client = place.from_url(dispatcher.options.url, max_connections=2 * count)
        try:
            return await _many(call, count, each)
        finally:
            await dispatcher.client.aclose()

    return asyncio.run(main())


def _looped(call: Callable[[], Awaitable[None]], count: int, each: int) -> float:
    return asyncio.run(_many(call, count, each))


async def _many(call: Callable[[], Awaitable[None]], count: int, each: int) -> float:
    """Microseconds of processor time of each call, once all have connected."""

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await call()

    await asyncio.gather(*(caller(1) for _ in range(count)))
    started = process_time()
    await asyncio.gather(*(caller(each) for _ in range(count)))
    return (process_time() - started) / (count * each) * 1e6


def _used(work: Callable[[], object], calls: int) -> float:
    started = process_time()
    work()
    return (process_time() - started) / calls * 1e6


def _in_turns(*turns: Callable[[], float]) -> list[float]:
    """The medians of several, each in its turn."""
    for turn in turns:
        turn()
    rounds = [[turn() for turn in turns] for _ in range(ROUNDS)]
    return [median(column) for column in zip(*rounds, strict=True)]
