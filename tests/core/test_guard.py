"""The guard: a call on a helper thread is waited for, at most until its timeout (C2)."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from dispatchers._runtime import guard_pool as _guard_threads
from dispatchers._runtime.guard import (
    Guard,
    GuardClosedError,
    GuardFullError,
    GuardTimeoutError,
    Late,
    register_closer,
)

from ..timing import within  # noqa: TID252 - as for the other cases

GENEROUS = 30.0
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


class Hang:
    """A call that returns when told to, and says when it has begun."""

    def __init__(self, value: object = "late") -> None:
        self.begun = threading.Event()
        self.released = threading.Event()
        self.value = value

    def __call__(self) -> object:
        self.begun.set()
        assert self.released.wait(GENEROUS)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard("test", cap=3)
    yield guard
    guard.close(GENEROUS)


@pytest.fixture
def hang() -> Iterator[Hang]:
    hang = Hang()
    yield hang
    hang.released.set()


def abandon(guard: Guard, hang: Hang, **kwargs: Callable[[Late[object]], object]) -> None:
    with pytest.raises(GuardTimeoutError):
        guard.call(hang, timeout=0.02, **kwargs)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def helpers(guard: Guard) -> set[threading.Thread]:
    prefix = f"{guard.name}-guard-"
    return {t for t in threading.enumerate() if t.is_alive() and t.name.startswith(prefix)}


def die_if_stuck(seconds: int = 10) -> None:
    """In a forked child: be killed after a while, whoever handles alarms in the parent."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def in_child(act: Callable[[], bool]) -> int:
    """The exit code of a forked child: 0 if `act` was true there; a stuck child is killed."""
    pid = os.fork()
    if pid == 0:
        die_if_stuck()
        try:
            os._exit(0 if act() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_script(body: str) -> subprocess.CompletedProcess[str]:
    head = "import atexit, os, sys, threading\nfrom dispatchers._runtime.guard import *\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", head + body],
        capture_output=True,
        text=True,
        timeout=GENEROUS,
        check=False,
    )


class TestCall:
    def test_returns_what_the_function_returns(self, guard):
        """The value comes back from the helper."""
        assert guard.call(lambda: 42, timeout=GENEROUS) == 42

    @pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
    def test_raises_what_the_function_raises(self, guard, error):
        """C1: whatever it raises, `BaseException` included, is raised in the caller."""

        def fail() -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            guard.call(fail, timeout=GENEROUS)

        assert caught.value is error

    def test_works_after_a_base_exception(self, guard):
        """An exception that would end a thread does not end the helper."""
        with pytest.raises(SystemExit):
            guard.call(sys.exit, timeout=GENEROUS)

        assert guard.call(lambda: "still", timeout=GENEROUS) == "still"
        assert len(helpers(guard)) == 1

    def test_an_error_is_not_kept(self, guard, uncollected):
        """Neither the guard nor a cycle of references keeps the error and its frames alive."""
        errors = [Interrupted()]
        reference = weakref.ref(errors[0])

        def fail() -> None:
            raise errors.pop()

        with pytest.raises(Interrupted):
            guard.call(fail, timeout=GENEROUS)
        guard.call(lambda: None, timeout=GENEROUS)

        assert reference() is None

    def test_runs_in_a_copy_of_the_context(self, guard):
        """The caller's context variables are seen, and changes stay in the call."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("caller")

        def call() -> str:
            seen = variable.get()
            variable.set("helper")
            return seen

        assert guard.call(call, timeout=GENEROUS) == "caller"
        assert variable.get() == "caller"

    def test_one_caller_needs_one_helper(self, guard):
        """Calls one after the other run on the same thread."""
        threads = {guard.call(threading.get_ident, timeout=GENEROUS) for _ in range(200)}

        assert len(threads) == 1

    def test_calls_of_several_threads_run_side_by_side(self, guard):
        """As many calls at once as callers, on as many helpers."""
        barrier = threading.Barrier(5)
        callers = [
            threading.Thread(target=guard.call, args=(barrier.wait,), kwargs={"timeout": GENEROUS})
            for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        guard.call(barrier.wait, timeout=GENEROUS)
        for caller in callers:
            caller.join()

        assert len(helpers(guard)) == 5

    def test_a_call_may_call(self, guard):
        """A call within a call gets another helper."""
        inner = lambda: guard.call(lambda: "inner", timeout=GENEROUS)

        assert guard.call(inner, timeout=GENEROUS) == "inner"

    @pytest.mark.parametrize("timeout", [0, -1, -0.5, math.nan])
    def test_begins_nothing_when_no_time_is_left(self, guard, timeout):
        """C2: a timeout that has passed begins nothing, and -1 does not mean for ever."""
        ran = threading.Event()

        with pytest.raises(GuardTimeoutError) as caught:
            guard.call(ran.set, timeout=timeout)

        assert caught.value.started is False
        assert not ran.is_set()

    def test_waits_without_bound_when_told_to(self, guard):
        """An infinite timeout is one."""
        assert guard.call(lambda: 1, timeout=math.inf) == 1

    def test_refuses_a_cap_that_would_refuse_everything(self):
        """A cap below one is an error at construction, which names the guard."""
        with pytest.raises(ValueError, match="'test'"):
            Guard("test", cap=0)


class TestOverdue:
    def test_costs_its_caller_the_timeout(self, guard, hang):
        """C2: an overdue call is abandoned within the timeout plus 0.25 s, as begun."""
        begun = time.monotonic()
        with within(0.3), pytest.raises(GuardTimeoutError, match="'test'") as caught:
            guard.call(hang, timeout=0.3)

        assert time.monotonic() - begun >= 0.3
        assert caught.value.started is True
        assert guard.abandoned == 1

    def test_leaves_the_guard_at_work(self, guard, hang):
        """While a call hangs, others run, on another thread."""
        abandon(guard, hang)

        assert guard.call(lambda: 1, timeout=GENEROUS) == 1
        assert len(helpers(guard)) == 2

    def test_helper_serves_again_once_its_call_returned(self, guard, hang):
        """The helper of an abandoned call comes back, no new thread is needed."""
        abandon(guard, hang)
        hang.released.set()
        until(lambda: guard.abandoned == 0)
        until(lambda: len(guard._pool.idle) == 1)

        guard.call(lambda: None, timeout=GENEROUS)

        assert len(helpers(guard)) == 1

    @pytest.mark.parametrize("outcome", ["done", ValueError("x"), SystemExit()])
    def test_tells_what_became_of_it(self, guard, outcome):
        """`on_late` gets the value or the error, after the caller was told that it is unknown."""
        hang, told = Hang(outcome), threading.Event()
        lates: list[Late[object]] = []

        abandon(guard, hang, on_late=lambda late: (lates.append(late), told.set()))
        before = list(lates)
        hang.released.set()
        assert told.wait(GENEROUS)

        failed = isinstance(outcome, BaseException)
        assert before == []
        assert lates == [Late(None, outcome) if failed else Late(outcome, None)]

    def test_tells_in_the_callers_context(self, guard, hang):
        """`on_late` sees the context variables of the call."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("caller")
        seen, told = [], threading.Event()

        abandon(guard, hang, on_late=lambda _: (seen.append(variable.get()), told.set()))
        hang.released.set()

        assert told.wait(GENEROUS)
        assert seen == ["caller"]

    def test_tells_nothing_of_a_call_that_was_in_time(self, guard):
        """`on_late` is for abandoned calls only."""
        lates = []

        guard.call(lambda: None, timeout=GENEROUS, on_late=lates.append)
        guard.close(GENEROUS)

        assert lates == []

    def test_a_broken_on_late_is_logged_without_its_message(self, guard, hang, caplog):
        """C4: the log has the type of the exception only; the helper lives on."""

        def broken(late: Late[object]) -> None:
            raise ValueError("a secret")

        with caplog.at_level(logging.WARNING, "dispatchers"):
            abandon(guard, hang, on_late=broken)
            hang.released.set()
            until(lambda: guard.abandoned == 0)

        assert "on_late of guard 'test' raised ValueError" in caplog.text
        assert "secret" not in caplog.text
        assert guard.call(lambda: 1, timeout=GENEROUS) == 1

    def test_a_call_that_no_helper_took_never_runs(self, guard):
        """C3: what was not begun within the timeout is certain never to begin."""
        asleep = _guard_threads.Helper(guard._pool)
        guard._pool.idle.append(asleep)
        ran = threading.Event()

        with pytest.raises(GuardTimeoutError, match="did not begin") as caught:
            guard.call(ran.set, timeout=0.02)
        asleep.thread.start()
        until(lambda: asleep in guard._pool.idle)

        assert caught.value.started is False
        assert not ran.is_set()
        assert guard.abandoned == 0

    def test_an_outcome_that_misses_its_caller_by_a_hair_is_told(self, guard):
        """C3: given up between the return and its announcement, the outcome is late, not lost."""
        lates: list[Late[object]] = []
        call = _guard_threads.Call(lambda: "late", lates.append)
        lock = call.done

        class GivenUp:
            """A lock whose release comes a moment too late."""

            acquire = lock.acquire

            def release(self) -> None:
                assert guard._pool.leave(call)
                lock.release()

        call.done = GivenUp()
        _guard_threads.Helper(guard._pool)._run(call)

        assert lates == [Late("late", None)]
        assert guard.abandoned == 0

    def test_every_outcome_is_told_once(self, guard):
        """C3: returned, or abandoned and told of later, or never begun: never two, never none."""
        told: Counter[int] = Counter()
        unbegun: set[int] = set()
        ran: Counter[int] = Counter()
        wide = Guard("wide", cap=10_000)

        def work(number: int, seconds: float) -> int:
            ran[number] += 1
            time.sleep(seconds)
            return number

        def one(number: int) -> None:
            pause, wait = random.random() / 500, random.random() / 500 + 1e-6
            try:
                told[
                    wide.call(
                        lambda: work(number, pause),
                        timeout=wait,
                        on_late=lambda late: told.update([late.value]),
                    )
                ] += 1
            except GuardTimeoutError as exc:
                if not exc.started:
                    unbegun.add(number)

        def caller(first: int) -> None:
            for number in range(first, first + 150):
                one(number)

        callers = [threading.Thread(target=caller, args=(n * 1000,)) for n in range(4)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
        left = wide.close(GENEROUS)

        every = {n * 1000 + i for n in range(4) for i in range(150)}
        assert left == wide.abandoned == 0
        assert set(ran) == every - unbegun
        assert told == ran
        assert set(ran.values()) == {1}


class TestCap:
    def test_refuses_at_once_when_the_cap_is_reached(self, guard, hang):
        """C2: beyond the cap a call costs nothing and is never begun."""
        for _ in range(3):
            abandon(guard, hang)
        ran = threading.Event()

        with within(0.0), pytest.raises(GuardFullError, match="3 calls of guard 'test' hang"):
            guard.call(ran.set, timeout=GENEROUS)

        assert not ran.is_set()

    def test_serves_again_when_a_call_has_returned(self, guard, hang):
        """The cap counts calls that hang now."""
        for _ in range(3):
            abandon(guard, hang)
        hang.released.set()
        until(lambda: guard.abandoned == 0)

        assert guard.call(lambda: 1, timeout=GENEROUS) == 1

    def test_the_hundredth_call_is_refused_like_the_first(self, guard, hang):
        """C2: a hundred calls into a hanging backend leave `cap` threads behind."""
        refused = 0
        for _ in range(100):
            try:
                guard.call(hang, timeout=0.01)
            except GuardFullError:
                refused += 1
            except GuardTimeoutError:
                pass

        assert refused == 97
        assert len(helpers(guard)) == 3

    def test_a_thread_that_cannot_start_is_a_refusal(self, guard, monkeypatch):
        """C2: "can't start new thread" is a typed error, and the guard recovers."""

        def fail(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            with pytest.raises(GuardFullError, match="can't start new thread"):
                guard.call(lambda: None, timeout=GENEROUS)

        assert guard.abandoned == 0
        assert guard.call(lambda: 1, timeout=GENEROUS) == 1


class TestClosers:
    def test_an_abandoned_call_closes_what_it_opened(self, guard, hang):
        """C2: when it returns at last, its thread closes what it opened, then serves again."""
        closed_on: list[int] = []

        def opens() -> int:
            register_closer(lambda: closed_on.append(threading.get_ident()))
            hang()
            return threading.get_ident()

        lates: list[Late[object]] = []
        with pytest.raises(GuardTimeoutError):
            guard.call(opens, timeout=0.02, on_late=lates.append)
        hang.released.set()
        until(lambda: guard.abandoned == 0)

        assert closed_on == [lates[0].value]

    def test_a_call_in_time_keeps_its_connection(self, guard):
        """What a call opened stays open for the next one on the same thread."""
        closed = []
        guard.call(lambda: register_closer(lambda: closed.append(1)), timeout=GENEROUS)

        guard.call(lambda: None, timeout=GENEROUS)

        assert closed == []

    def test_close_closes_what_helpers_opened(self, guard):
        """A helper that ends closes what its calls opened, once, the last opened first."""
        closed: list[str] = []
        first, second = (lambda: closed.append("first")), (lambda: closed.append("second"))
        for closer in (first, second, first):
            guard.call(lambda closer=closer: register_closer(closer), timeout=GENEROUS)

        left = guard.close(GENEROUS)

        assert left == 0
        assert closed == ["second", "first"]

    def test_a_broken_closer_does_not_keep_others_open(self, guard, caplog):
        """Every closer is called; one that raises is logged by its type."""
        closed = []
        guard.call(lambda: register_closer(lambda: closed.append(1)), timeout=GENEROUS)
        guard.call(lambda: register_closer(lambda: 1 / 0), timeout=GENEROUS)

        guard.close(GENEROUS)

        assert closed == [1]
        assert "closer of guard 'test' raised ZeroDivisionError" in caplog.text

    def test_a_thread_of_its_own_closes_by_itself(self):
        """Outside a guard nothing is registered, and the caller is told so."""
        assert register_closer(lambda: None) is False


class TestClose:
    def test_ends_every_helper(self, guard):
        """C8: after `close` no thread is left."""
        guard.call(lambda: guard.call(lambda: None, timeout=GENEROUS), timeout=GENEROUS)

        left = guard.close(GENEROUS)

        assert left == 0
        assert helpers(guard) == set()

    def test_says_how_many_calls_were_left(self, guard, hang):
        """C8: calls that do not return within the timeout are counted."""
        guard.call(lambda: None, timeout=GENEROUS)
        abandon(guard, hang)
        abandon(guard, hang)

        left = guard.close(0.05)

        assert left == 2

    def test_waits_for_calls_under_way(self, guard, hang):
        """A call that is in time gets its answer although the guard closes meanwhile."""
        answers = []
        caller = threading.Thread(target=lambda: answers.append(guard.call(hang, timeout=GENEROUS)))
        caller.start()
        hang.begun.wait(GENEROUS)
        closer = threading.Thread(target=lambda: answers.append(guard.close(GENEROUS)))
        closer.start()
        until(lambda: guard._pool.closed)
        hang.released.set()
        caller.join()
        closer.join()

        assert sorted(map(str, answers)) == ["0", "late"]

    def test_refuses_afterwards(self, guard):
        """A closed guard begins nothing; closing it again is harmless."""
        guard.close(GENEROUS)

        with pytest.raises(GuardClosedError, match="'test' was closed"):
            guard.call(lambda: None, timeout=GENEROUS)
        assert guard.close(GENEROUS) == 0

    def test_may_come_from_a_call(self, guard):
        """`close` within a call does not wait for itself; that call is what is left."""
        assert guard.call(lambda: guard.close(GENEROUS), timeout=GENEROUS) == 1

    def test_a_guard_nobody_holds_ends_its_helpers(self):
        """Forgetting to close leaks no thread."""
        guard = Guard("forgotten")
        guard.call(lambda: None, timeout=GENEROUS)
        (thread,) = helpers(guard)

        del guard

        thread.join(GENEROUS)
        assert not thread.is_alive()

    def test_helpers_of_a_burst_end_when_idle(self, guard, monkeypatch):
        """After a burst one idle helper stays, the others end."""
        monkeypatch.setattr(_guard_threads, "IDLE_SECONDS", 0.05)
        barrier = threading.Barrier(3)
        callers = [
            threading.Thread(target=guard.call, args=(barrier.wait,), kwargs={"timeout": GENEROUS})
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

        until(lambda: len(helpers(guard)) == 1)

        assert guard.call(lambda: 1, timeout=GENEROUS) == 1

    def test_a_helper_that_was_taken_but_never_called_ends(self, guard, monkeypatch):
        """A caller interrupted between taking a helper and calling it leaks no thread."""
        monkeypatch.setattr(_guard_threads, "IDLE_SECONDS", 0.05)
        guard.call(lambda: None, timeout=GENEROUS)
        guard._pool.idle.pop()

        until(lambda: helpers(guard) == set())

        assert guard.call(lambda: 1, timeout=GENEROUS) == 1

    def test_a_helper_that_was_called_after_all_stays(self, guard):
        """A caller that was slow between taking a helper and calling it gets its answer."""
        guard.call(lambda: None, timeout=GENEROUS)
        (helper,) = guard._pool.idle
        helper.lost = True

        answer = guard.call(lambda: 1, timeout=GENEROUS)

        assert answer == 1
        assert not helper.lost


class Interrupted(BaseException):
    """Like KeyboardInterrupt, or gevent's timeout."""


class TestInterruption:
    def test_of_the_caller_abandons_the_call(self, guard, hang, on_signal):
        """C1: an interruption passes through; the call it left behind is abandoned and told of."""
        told, interrupted = threading.Event(), threading.Event()

        def interrupt(*_: object) -> None:
            if not interrupted.is_set():
                interrupted.set()
                raise Interrupted

        def kick() -> None:  # again, since a signal just before a thread blocks does not wake it
            hang.begun.wait(GENEROUS)
            while not interrupted.wait(0.01):
                os.kill(os.getpid(), signal.SIGUSR1)

        kicker = threading.Thread(target=kick)
        with on_signal(signal.SIGUSR1, interrupt):
            kicker.start()
            try:
                with pytest.raises(Interrupted):
                    guard.call(hang, timeout=GENEROUS, on_late=lambda _: told.set())
            finally:
                interrupted.set()
                kicker.join()
        abandoned = guard.abandoned
        hang.released.set()

        assert abandoned == 1
        assert told.wait(GENEROUS)
        until(lambda: guard.abandoned == 0)

    # An interruption may hit a destructor of the guard's own, which cannot pass it on.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_at_any_moment_leaves_the_guard_at_work(self, guard, on_signal):
        """Interruptions at random instants of `call` leave no call counted and no cap reached."""

        def interrupt(*_: object) -> None:
            nonlocal inside, interruptions
            if inside:
                inside = False
                interruptions += 1
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                raise Interrupted

        interruptions = 0
        inside = False
        end = time.monotonic() + 1.0
        with on_signal(signal.SIGALRM, interrupt, every=0.0005):
            while time.monotonic() < end:
                with contextlib.suppress(Interrupted, GuardFullError):
                    inside = True
                    guard.call(int, timeout=GENEROUS)
                    inside = False
            inside = False

        assert interruptions > 0
        until(lambda: guard.abandoned == 0)
        assert guard.call(lambda: 1, timeout=GENEROUS) == 1

    def test_by_a_signal_handler_that_calls(self, guard, on_signal):
        """C8: a handler may use the guard that its thread is using, at any moment."""
        answers = []
        handle = lambda *_: answers.append(guard.call(lambda: 1, timeout=GENEROUS))
        end = time.monotonic() + 0.5
        with on_signal(signal.SIGALRM, handle, every=0.002):
            while time.monotonic() < end or not answers:
                assert guard.call(lambda: 2, timeout=GENEROUS) == 2

        assert set(answers) == {1}


@forks
class TestFork:
    def test_child_and_parent_both_work(self, guard):
        """C8: the child starts with helpers of its own, the parent keeps its."""
        guard.call(lambda: None, timeout=GENEROUS)

        code = in_child(lambda: guard.call(lambda: 1, timeout=5.0) == 1)

        assert code == 0
        assert guard.call(lambda: 1, timeout=GENEROUS) == 1
        assert len(helpers(guard)) == 1

    def test_child_is_free_of_the_parents_hanging_calls(self, guard, hang):
        """C8: what hangs in the parent does not fill the child's cap."""
        for _ in range(3):
            abandon(guard, hang)

        code = in_child(lambda: guard.abandoned == 0 and guard.call(lambda: 1, timeout=5.0) == 1)

        assert code == 0
        assert guard.abandoned == 3

    def test_child_closes_nothing_of_the_parents(self, guard):
        """C8: closing in the child leaves the parent's connections alone."""
        closed: list[int] = []
        guard.call(lambda: register_closer(lambda: closed.append(1)), timeout=GENEROUS)

        code = in_child(lambda: guard.close(5.0) == 0 and closed == [])

        assert code == 0

    def test_a_closed_guard_is_closed_in_the_child(self, guard):
        """C8: the child does not reopen what the parent closed."""
        guard.close(GENEROUS)

        def refused() -> bool:
            with pytest.raises(GuardClosedError):
                guard.call(lambda: None, timeout=5.0)
            return True

        assert in_child(refused) == 0

    def test_a_call_that_forks_leaves_a_child_that_ends(self):
        """C8: a child forked on a helper thread runs the call to its end, and then ends.

        In a process of its own: gRPC, which other tests load, keeps such a child alive.
        """
        script = """
            import os, signal
            from dispatchers._runtime.guard import Guard

            def fork():
                pid = os.fork()
                if pid == 0:
                    signal.alarm(10)
                return pid

            pid = Guard("test", cap=3).call(fork, timeout=30)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """

        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            timeout=GENEROUS,
            check=True,
        )

        assert done.stdout == "0\n"

    def test_a_child_forked_by_a_call_closes_nothing(self, guard):
        """C8: what the helper opened is the parent's; the child ends without closing it."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)

        def fork() -> int:
            register_closer(lambda: os.write(writing, b"closed"))
            pid = os.fork()
            if pid == 0:
                die_if_stuck(2)  # it has nothing to do, and never ends where gRPC is loaded
            return pid

        os.waitpid(guard.call(fork, timeout=GENEROUS), 0)
        with pytest.raises(BlockingIOError):
            os.read(reading, 100)
        guard.close(GENEROUS)

        assert os.read(reading, 100) == b"closed"
        os.close(reading)
        os.close(writing)


class TestShutdown:
    def test_a_hanging_call_does_not_keep_the_process(self):
        """C2: the interpreter ends although an abandoned call never returns."""
        done = run_script(
            "g = Guard('x')\n"
            "try: g.call(threading.Event().wait, timeout=0.05)\n"
            "except GuardTimeoutError: print('abandoned')\n"
        )

        assert (done.stdout, done.stderr, done.returncode) == ("abandoned\n", "", 0)

    def test_calls_at_exit_are_answered_or_refused(self):
        """C2: at exit a call returns or raises a typed error at once, it does not hang."""
        done = run_script(
            "g = Guard('x'); fresh = Guard('y')\n"
            "g.call(int, timeout=5)\n"
            "def late(guard):\n"
            "    try: print(guard.call(lambda: 1, timeout=25))\n"
            "    except GuardFullError: print('refused')\n"
            "atexit.register(late, g); atexit.register(late, fresh)\n"
        )

        first, second = done.stdout.split()
        assert first in ("1", "refused")
        assert (second, done.stderr, done.returncode) == ("1", "", 0)

    def test_calls_of_destructors_after_the_end_are_refused(self):
        """C2: when helpers cannot run any more, a call is refused at once."""
        done = run_script(
            "class Last:\n"
            "    def __init__(self): self.guard = Guard('x'); self.guard.call(int, timeout=5)\n"
            "    def __del__(self, closed=GuardClosedError, write=os.write):\n"
            "        try: self.guard.call(int, timeout=25)\n"
            "        except closed: write(1, b'refused')\n"
            "threading.keep = Last()\n"
        )

        assert (done.stdout, done.stderr, done.returncode) == ("refused", "", 0)
