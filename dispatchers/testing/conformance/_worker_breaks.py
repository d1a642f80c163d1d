"""C9: steps of a worker that break off, and a backend that is away."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from dispatchers import BaseDispatcher, Worker
from dispatchers.testing._trap import Trap
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal
from dispatchers.worker import BaseAsyncWorker, BaseWorker, Work

from . import _tools
from ._never_hangs import proxied
from ._tools import send
from ._worker_tools import SETTLED, by_hand, taken, until, working

__all__ = ["BreaksOff"]

T = TypeVar("T")
TRIES = 25
"""How many lines are tried, evenly spread over those that a settling passes."""


class BreaksOff:
    """C9, where a call fails."""

    @pytest.mark.parametrize("way", ["_retry", "_give_back", "_dead_letter"])
    def test_a_step_that_breaks_off_loses_nothing(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C9: at whichever line a settling fails, the backend holds the work, or has it dead.

        So the next message is published, or the dead letter kept, before this one is settled.
        """
        harness.need("received", *(["dead"] if way == "_dead_letter" else []))
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.durable:
            pytest.skip(f"{dispatcher.name} holds work in memory, where no call fails")
        worker = by_hand(harness, dispatcher)
        files = _files_of(type(worker))

        def settled(line: int) -> tuple[Work[Any], int]:
            """Settle new work, with a failure at this line; return it and the lines passed."""
            send(dispatcher, journal).raise_for_error()
            work, trap = taken(worker), Trap(files, line, _fail)
            _settle(worker, way, work, trap)
            return work, trap.passed

        _, lines = settled(sys.maxsize)
        assert lines, "no line of the adapter was passed"
        for line in range(1, lines + 1, -(-lines // TRIES)):
            work, _ = settled(line)

            there = harness.received(dispatcher)
            if way == "_dead_letter":
                there = [*there, *harness.dead(dispatcher)]
            assert work.body in there, f"{way} failed at its line {line}, and the work is gone"

    def test_a_backend_that_was_away_is_asked_again(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: a worker whose connection is lost goes on once the backend answers again."""
        with (
            _cuttable(harness) as (dispatcher, cut, healed, prepared),
            working(harness, dispatcher, prepared=prepared),
        ):
            send(dispatcher, journal, "first").raise_for_error()
            until(lambda: journal.texts == ["first"])
            cut()
            healed()
            send(dispatcher, journal, "second").raise_for_error()
            until(lambda: journal.texts == ["first", "second"])

    def test_a_backend_that_is_away_is_not_drained(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: with `drain` a worker that cannot ask for work does not take that for its end."""
        with _cuttable(harness) as (dispatcher, cut, healed, prepared):
            send(dispatcher, journal, "text").raise_for_error()
            cut()
            with working(harness, dispatcher, prepared=prepared, drain=True) as worker:
                went_on = worker.goes_on()
                healed()
                code = worker.ended()

        assert went_on, "it ended, and never got an answer"
        assert (code, journal.texts) == (0, ["text"])


def _files_of(kind: type) -> set[str]:
    """Return the files beside the modules of an adapter's worker."""
    modules = {each.__module__ for each in kind.__mro__ if each not in BaseAsyncWorker.__mro__}
    # A class that is made by `type()` says that it is of the module `abc`.
    own = [name for name in modules if name not in sys.stdlib_module_names]
    files = [getattr(sys.modules[name], "__file__", None) for name in own]
    return {str(path) for file in files if file for path in Path(file).parent.glob("*.py")}


def _fail() -> NoReturn:
    raise ConnectionError("lost")


def _settle(worker: BaseWorker[Any], way: str, work: Work[Any], trap: Trap) -> None:
    """Settle work within a trap, on the thread on which the adapter's code runs."""
    if isinstance(worker, BaseAsyncWorker):

        def waited(call: Coroutine[Any, Any, T], more: float = 0.0) -> T | None:
            return type(worker)._waited(worker, _within(trap, call), more)

        vars(worker)["_waited"] = waited
        SETTLED[way](worker, work)
        del vars(worker)["_waited"]
    else:
        with suppress(Exception), trap:
            SETTLED[way](worker, work)


async def _within(trap: Trap, call: Coroutine[Any, Any, T]) -> T | None:
    """Await a coroutine on the thread of its loop, within a trap."""
    with suppress(Exception), trap:
        return await call
    return None


Cuttable = tuple[
    BaseDispatcher, Callable[[], None], Callable[[], None], Callable[[Worker], object] | None
]
"""A dispatcher, what cuts its worker off, what ends that, and what the worker needs before."""


@contextmanager
def _cuttable(harness: Harness) -> Generator[Cuttable]:
    """A backend whose workers can be cut off: by a proxy, or at the calls of the kit."""
    if harness.has("network"):
        with proxied(harness, deadline=_tools.PATIENCE) as (proxy, dispatcher):
            yield dispatcher, proxy.reset, proxy.heal, None
    else:
        away = _Away()
        yield harness.dispatcher(), away.set, away.clear, away.cut


class _Away:
    """The connection of a worker on the kit, lost for one call."""

    def __init__(self) -> None:
        self._lost, self._noticed = threading.Event(), threading.Event()

    def cut(self, worker: Worker) -> None:
        """Stand before the calls of a worker that take work."""
        if not isinstance(worker, BaseWorker):
            pytest.skip("no network, and a worker that does not stand on dispatchers.worker")
        take = worker._take

        def took(wait: float) -> Any:
            if self._lost.is_set():
                self._noticed.set()
                raise ConnectionError("lost")
            return take(wait)

        vars(worker)["_take"] = took

    def set(self) -> None:
        """Lose it."""
        self._lost.set()

    def clear(self) -> None:
        """Have it again, once the worker has noticed."""
        assert self._noticed.wait(_tools.PATIENCE), "the worker asked no more"
        self._lost.clear()
