"""An event loop's side of the calls that it waits for: their time limits, and their answers."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatchers._runtime.loop_side import GRAIN, LoopSide, side_of

PATIENCE = 30.0
LONG = 1000.0
FDS = Path("/proc/self/fd")


class Derived(asyncio.SelectorEventLoop):
    """A loop that is not known to be as asyncio's own."""


def fds() -> set[Path]:
    return set(FDS.iterdir())


def posted_from_thread(loop, *, values):
    """Return what was called with on the loop, and on which threads."""
    seen = []

    async def main() -> None:
        side, all_seen = side_of(asyncio.get_running_loop()), asyncio.Event()

        def take(value):
            seen.append((value, threading.get_ident()))
            if len(seen) == len(values):
                all_seen.set()

        thread = threading.Thread(target=lambda: [side.post(take, value) for value in values])
        thread.start()
        await asyncio.wait_for(all_seen.wait(), PATIENCE)
        thread.join()

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return seen


@pytest.mark.parametrize("make", [asyncio.SelectorEventLoop, Derived])
def test_answers_of_a_thread_come_on_the_loop_in_their_order(make):
    """C8: on asyncio's own loop and on any other."""
    seen = posted_from_thread(make(), values=[1, 2, 3])

    assert seen == [(each, threading.get_ident()) for each in (1, 2, 3)]


def test_an_answer_that_raises_holds_up_no_other():
    """C8: the loop's handler has the exception, the next answer comes all the same."""
    handled, seen = [], []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: handled.append(context["exception"]))
        side, came = side_of(loop), asyncio.Event()
        side.post(lambda _: 1 / 0, None)
        side.post(lambda value: (seen.append(value), came.set()), 2)
        await asyncio.wait_for(came.wait(), PATIENCE)

    asyncio.run(main())

    assert [type(each) for each in handled] == [ZeroDivisionError]
    assert seen == [2]


def test_a_closed_loop_takes_no_answer():
    """C8: its caller is told, so that an heir hears of it."""

    async def main():
        return side_of(asyncio.get_running_loop())

    side = asyncio.run(main())

    with pytest.raises(RuntimeError, match="closed"):
        side.post(print, "late")


@pytest.mark.skipif(not FDS.is_dir(), reason="counts open files by /proc")
def test_a_late_thread_keeps_the_file_descriptor_of_its_loop():
    """C8: its number may not be another file's before the last thread has answered."""

    async def main():
        return side_of(asyncio.get_running_loop())

    side = asyncio.run(main())
    fd = side._fd
    asyncio.run(main())  # the thread's own reference goes to the next loop
    os.fstat(fd)
    del side

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.skipif(not FDS.is_dir(), reason="counts open files by /proc")
def test_loops_that_take_turns_in_a_thread_have_one_file_descriptor_each():
    """C8: a framework's loop and a test's, say, for as long as both live."""
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]

    async def main():
        return side_of(asyncio.get_running_loop())

    first = [loop.run_until_complete(main()) for loop in loops]
    before = fds()
    again = [loop.run_until_complete(main()) for _ in range(5) for loop in loops]
    new = fds() - before  # what a former test has left may be collected meanwhile
    for loop in loops:
        loop.close()

    assert not new
    assert again == first * 5


def test_the_limits_of_many_calls_ring_each_in_its_time():
    """C2: the earlier first, whichever was set first; those that are dropped do not."""
    rung = []

    async def main() -> None:
        side, all_rung = side_of(asyncio.get_running_loop()), asyncio.Event()
        side.limit("late", 0.06, lambda: (rung.append("late"), all_rung.set()))
        side.limit("dropped", 0.01, lambda: rung.append("dropped"))
        side.limit("moved", 0.01, lambda: rung.append("moved from"))
        side.limit("moved", 0.04, lambda: rung.append("moved to"))
        side.limit("early", 0.02, lambda: rung.append("early"))
        side.limit("never", LONG, lambda: rung.append("never"))
        side.drop("dropped")
        await asyncio.wait_for(all_rung.wait(), PATIENCE)

    asyncio.run(main())

    assert rung == ["early", "moved to", "late"]


def test_a_limit_that_raises_holds_up_no_other():
    """C2: a deadline is kept in spite of what another's end raises."""
    handled, rung = [], []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: handled.append(context["exception"]))
        side, came = side_of(loop), asyncio.Event()
        side.limit("bad", 0.0, lambda: 1 / 0)
        side.limit("good", 0.0, lambda: (rung.append("good"), came.set()))
        await asyncio.wait_for(came.wait(), PATIENCE)

    asyncio.run(main())

    assert [type(each) for each in handled] == [ZeroDivisionError]
    assert rung == ["good"]


def test_thousands_of_limits_are_one_timer_of_the_loop():
    """A timer for each would be most of an awaited dispatch."""
    made = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        side, call_at = side_of(loop), loop.call_at
        loop.call_at = lambda *given, **more: (made.append(given), call_at(*given, **more))[1]
        for number in range(5000):
            side.limit(number, LONG, print)
            side.drop(number)

    asyncio.run(main())

    assert len(made) == 1


class Standing:
    """A loop whose clock stands still but where a test moves it, and whose timers are noted."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when, ring, *given, context):
        self.timers.append((when, lambda: context.run(ring, *given)))

    def ring(self) -> float:
        """Move the clock to the earliest timer, and let it ring; return when."""
        self.timers.sort(key=lambda timer: timer[0])
        self.now, ring = self.timers.pop(0)
        ring()
        return self.now


def test_limits_that_pass_singly_ring_together_once_in_a_while():
    """C8: a thousand calls that pass a thousandth of a second apart leave the loop its time."""
    loop, passed, rings = Standing(), [], []
    side = LoopSide(loop)  # type: ignore[arg-type]
    for number in range(1000):
        side.limit(number, number / 1000, lambda n=number: passed.append((n, loop.now)))

    while loop.timers:
        rings.append(loop.ring())

    assert [number for number, _ in passed] == list(range(1000))
    pauses = [later - earlier for earlier, later in itertools.pairwise(rings)]
    assert min(pauses) >= GRAIN * 0.99
    # Each within a grain of its time: far less than a deadline may be late (C2).
    assert max(when - 100.0 - number / 1000 for number, when in passed) <= GRAIN
