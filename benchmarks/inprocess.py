"""Dispatching in process: `inline` and `thread`, the guard, an open breaker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import dispatchers
from dispatchers._runtime.guard import Guard

from ._measure import Figure, interleaved, ratio
from .tasks import rich, small


class Down(dispatchers.BaseDispatcher):
    """A backend that is down, so that its breaker opens."""

    name = "down"
    contract = 1
    capabilities = dispatchers.Capabilities()

    def _send(self, request, body, *, timeout):
        raise ConnectionRefusedError

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return False


def _nothing(*_):
    return None


def inline() -> Iterator[Figure]:
    from huey import MemoryHuey

    from . import django_peer

    huey_task = MemoryHuey(immediate=True).task()(_nothing)
    rich_values = (uuid4(), datetime.now(UTC), Decimal("12.50"))
    names = ("identity", "moment", "amount")
    by_name = dict(zip(names, rich_values, strict=True))
    with dispatchers.override(default={"backend": "inline"}):
        ours, django, huey, ours_rich, huey_rich = interleaved(
            lambda: small.dispatch(number=1, text="abc"),
            lambda: django_peer.small.enqueue(number=1, text="abc"),
            lambda: huey_task(1, "abc"),
            lambda: rich.dispatch(**by_name),
            lambda: huey_task(*rich_values),
            rounds=200,
            each=100,
        )
    yield ratio(
        "`inline` dispatch of `(int, str)` over django-tasks' immediate", 0.25, ours, django
    )
    yield ratio("the same over huey's immediate mode", 1.0, ours, huey)
    yield ratio("the same with UUID, datetime and Decimal", 1.3, ours_rich, huey_rich)


def thread() -> Iterator[Figure]:
    # As long as work is handed over faster than it runs, the worker wakes for nobody; so each
    # side hands over little enough to be done before its next turn.
    options = {"backend": "thread", "workers": 1, "capacity": 1_000_000}
    executor = ThreadPoolExecutor(1)
    with dispatchers.override(default={"backend": "inline"}, threaded=options):
        threaded = small.options(dispatcher="threaded")
        in_call, on_thread, bare = interleaved(
            lambda: small.dispatch(number=1, text="abc"),
            lambda: threaded.dispatch(number=1, text="abc"),
            lambda: executor.submit(_nothing, 1, "abc"),
            rounds=200,
            each=100,
        )
    executor.shutdown()
    detail = f"({on_thread * 1e6:.2f} us - {in_call * 1e6:.2f} us) over {bare * 1e6:.2f} us"
    case = "`thread` dispatch less `inline` dispatch, over `ThreadPoolExecutor.submit`"
    yield Figure(case, 2.0, (on_thread - in_call) / bare, detail)


def guard() -> Iterator[Figure]:
    ours = Guard("bench")
    with ThreadPoolExecutor(1) as peer:
        guarded, submitted = interleaved(
            lambda: ours.call(_nothing, timeout=2.0),
            lambda: peer.submit(_nothing).result(),
            rounds=60,
            each=300,
        )
    ours.close(1.0)
    case = "guard around a no-op, over `ThreadPoolExecutor.submit().result()`"
    yield ratio(case, 0.85, guarded, submitted)


def breaker() -> Iterator[Figure]:
    logging.getLogger("dispatchers").setLevel(logging.CRITICAL + 1)
    dispatcher = Down(breaker={"failures": 1, "reset": 3600.0})
    request = small.request(number=1, text="abc")
    dispatcher.dispatch(request)
    answer, plain = interleaved(
        lambda: dispatcher.dispatch(request), _nothing, rounds=200, each=100
    )
    detail = f"{answer * 1e6:.2f} us, {answer / plain:.0f} plain calls"
    yield Figure("an open breaker's answer, logging off", 2.0, answer * 1e6, detail, " us")
