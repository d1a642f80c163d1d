"""The breaker: opens on failures in a row, lets one probe through, closes when it succeeds."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import ValidationError

from dispatchers._dispatch.circuit_breaker import Breaker, BreakerState
from dispatchers._models.options import BreakerSettings


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock, **settings: float) -> Breaker:
    breaker = Breaker(BreakerSettings.model_validate({"failures": 1, **settings}), clock)
    breaker.record_failure()
    return breaker


def half_open(clock: Clock, **settings: float) -> Breaker:
    """A breaker whose probe is under way."""
    breaker = opened(clock, **settings)
    clock.now += breaker.settings.reset
    assert breaker.allow()
    return breaker


def test_opens_at_the_configured_number_of_failures(clock):
    """The failure that reaches the number opens the breaker, and says so once."""
    breaker = Breaker(BreakerSettings(failures=3), clock)

    transitions = [breaker.record_failure() for _ in range(4)]

    assert transitions == [None, None, "opened", None]
    assert not breaker.allow()


def test_a_success_starts_the_count_anew(clock):
    """Only failures in a row open it."""
    breaker = Breaker(BreakerSettings(failures=2), clock)

    breaker.record_failure()
    breaker.record_success()
    transition = breaker.record_failure()

    assert transition is None
    assert breaker.allow()


def test_neutral_outcomes_neither_count_nor_reset(clock):
    """The caller's fault says nothing of the backend, good or bad."""
    breaker = Breaker(BreakerSettings(failures=2), clock)

    breaker.record_failure()
    for _ in range(9):
        breaker.record_neutral()
    transition = breaker.record_failure()

    assert transition == "opened"


def test_refuses_until_reset_has_passed(clock):
    """An open breaker refuses, and counts what it refused."""
    breaker = opened(clock, reset=5.0)

    clock.now += 4.9
    answers = [breaker.allow() for _ in range(3)]

    assert answers == [False] * 3
    assert breaker.suppressed == 3
    assert breaker.state is BreakerState.OPEN


def test_half_open_lets_one_probe_through(clock):
    """After `reset` seconds one call goes, and no other while it is under way."""
    breaker = opened(clock, reset=5.0)

    clock.now += 5.0
    before = breaker.state
    answers = [breaker.allow() for _ in range(3)]

    assert before is BreakerState.HALF_OPEN
    assert answers == [True, False, False]
    assert breaker.state is BreakerState.HALF_OPEN


def test_half_open_lets_one_probe_through_of_many_threads(clock):
    """Exactly one of many threads that ask at once is the probe."""
    breaker = opened(clock)
    clock.now += breaker.settings.reset
    barrier = threading.Barrier(16)
    answers: list[bool] = []

    def ask() -> None:
        barrier.wait()
        answers.append(breaker.allow())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [False] * 15 + [True]
    assert breaker.suppressed == 15


def test_half_open_lets_one_probe_through_of_an_interrupted_thread(clock):
    """C8: a signal handler that becomes the probe leaves none to the caller it interrupted."""
    breaker = opened(clock)
    clock.now += breaker.settings.reset
    lock, nested = breaker._lock, []

    class Interrupted:
        """A lock before whose acquisition a signal arrives."""

        def __enter__(self) -> None:
            breaker._lock = lock
            nested.append(breaker.allow())
            lock.acquire()

        def __exit__(self, *exc: object) -> None:
            lock.release()

    breaker._lock = Interrupted()

    assert (breaker.allow(), nested) == (False, [True])


def test_a_successful_probe_closes_it(clock):
    """The breaker closes, says so once, and keeps the count of what it refused."""
    breaker = opened(clock)
    breaker.allow()
    clock.now += breaker.settings.reset
    breaker.allow()

    transition = breaker.record_success()

    assert transition == "closed"
    assert breaker.state is BreakerState.CLOSED
    assert (breaker.allow(), breaker.suppressed, breaker.opened_count) == (True, 1, 1)


def test_after_closing_it_takes_as_many_failures_as_before(clock):
    """A breaker that closed has forgotten the failures that opened it."""
    breaker = Breaker(BreakerSettings(failures=2), clock)
    breaker.record_failure()
    breaker.record_failure()
    clock.now += breaker.settings.reset
    breaker.allow()
    breaker.record_success()

    transitions = [breaker.record_failure(), breaker.record_failure()]

    assert transitions == [None, "opened"]


def test_a_failed_probe_waits_for_another_reset(clock):
    """It stays open for another `reset` seconds; that is no new opening."""
    breaker = half_open(clock, reset=5.0)

    transition = breaker.record_failure()
    clock.now += 4.9
    early = breaker.allow()
    clock.now += 0.2
    late = breaker.allow()

    assert (transition, early, late) == (None, False, True)
    assert breaker.opened_count == 1


def test_a_neutral_probe_frees_its_place(clock):
    """A probe that failed by its caller's fault leaves the place to the next call at once."""
    breaker = half_open(clock)

    breaker.record_neutral()

    assert (breaker.allow(), breaker.allow()) == (True, False)


def test_a_lost_probe_expires(clock):
    """A probe whose caller died does not keep the breaker open for ever."""
    breaker = half_open(clock, probe_timeout=3.0)

    clock.now += 2.9
    early = breaker.allow()
    clock.now += 0.2
    late = [breaker.allow(), breaker.allow()]

    assert (early, late) == (False, [True, False])


def test_several_probes_must_succeed_in_a_row(clock):
    """With `probes=2` one success lets the next probe go, the second closes."""
    breaker = half_open(clock, probes=2)

    first = breaker.record_success()
    again = breaker.allow()
    second = breaker.record_success()

    assert (first, again, second) == (None, True, "closed")


def test_a_failed_probe_takes_back_earlier_successes(clock):
    """Probes count in a row, too."""
    breaker = half_open(clock, probes=2)

    breaker.record_success()
    breaker.allow()
    breaker.record_failure()
    clock.now += breaker.settings.reset
    breaker.allow()

    assert breaker.record_success() is None


def test_answers_to_calls_from_before_it_opened_change_nothing(clock):
    """While open, late successes and failures neither close it nor make it wait longer."""
    breaker = opened(clock, reset=5.0)

    clock.now += 4.0
    transitions = [breaker.record_success(), breaker.record_failure()]
    refused = not breaker.allow()
    clock.now += 1.0

    assert transitions == [None, None]
    assert refused
    assert breaker.allow()


def test_a_new_opening_counts_refusals_anew(clock):
    """`suppressed` is of the latest opening, `opened_count` of all."""
    breaker = opened(clock)
    breaker.allow()
    clock.now += breaker.settings.reset
    breaker.allow()
    breaker.record_success()

    breaker.record_failure()

    assert (breaker.suppressed, breaker.opened_count) == (0, 2)


def test_a_signal_handler_may_use_the_breaker_it_interrupts(clock, on_signal):
    """C8: a handler that runs while its thread holds the lock does not wait for itself."""
    breaker = Breaker(BreakerSettings(failures=2), clock)

    with on_signal(signal.SIGUSR1, lambda *_: breaker.record_failure()):
        with breaker._lock:
            signal.raise_signal(signal.SIGUSR1)
        transition = breaker.record_failure()

    assert transition == "opened"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_keeps_the_state_and_gets_a_fresh_lock(clock):
    """C8: the child of a fork that caught the lock held is not stuck, and its breaker is open."""
    breaker = half_open(clock)
    held, fork_done = threading.Event(), threading.Event()

    def hold() -> None:
        with breaker._lock:
            held.set()
            fork_done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)

    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # a child that is stuck dies
        os._exit(0 if breaker.allow() and not breaker.allow() else 1)
    fork_done.set()
    holder.join()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert status == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 0},
        {"failures": True},
        {"failures": "5"},
        {"reset": 0},
        {"reset": False},
        {"reset": float("nan")},
        {"probes": 0},
        {"probe_timeout": float("inf")},
        {"treshold": 5},
    ],
)
def test_wrong_settings_are_refused(wrong):
    """Numbers out of range, booleans, texts and unknown names are errors."""
    with pytest.raises(ValidationError):
        BreakerSettings.model_validate(wrong)


def test_settings_default_to_five_failures_and_five_seconds():
    """A breaker without settings has the documented ones, and the monotonic clock."""
    breaker = Breaker()

    assert breaker.settings == BreakerSettings(failures=5, reset=5.0, probes=1, probe_timeout=10.0)
    assert breaker._clock is time.monotonic


class Model(RuleBasedStateMachine):
    """The breaker against a model that is written down naively."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(
            BreakerSettings(failures=2, reset=5.0, probes=2, probe_timeout=3.0), self.clock
        )
        self.failures = self.successes = 0
        self.open = False
        self.probe_since: float | None = None
        self.free_from = 0.0

    def probe_is_out(self) -> bool:
        return self.probe_since is not None and self.clock.now < self.probe_since + 3.0

    @rule(seconds=st.sampled_from([1.0, 3.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def allow(self) -> None:
        expected = not self.open or (not self.probe_is_out() and self.clock.now >= self.free_from)
        assert self.breaker.allow() is expected
        if expected and self.open:
            self.probe_since = self.clock.now

    @rule()
    def success(self) -> None:
        transition = None
        if not self.open:
            self.failures = 0
        elif self.probe_since is not None:
            self.successes += 1
            self.probe_since, self.free_from = None, self.clock.now
            if self.successes == 2:
                self.open, self.failures, transition = False, 0, "closed"
        assert self.breaker.record_success() == transition

    @rule()
    def failure(self) -> None:
        transition = None
        if not self.open:
            self.failures += 1
            if self.failures == 2:
                self.open, self.successes, transition = True, 0, "opened"
                self.free_from = self.clock.now + 5.0
        elif self.probe_since is not None:
            self.successes = 0
            self.probe_since, self.free_from = None, self.clock.now + 5.0
        assert self.breaker.record_failure() == transition

    @precondition(lambda self: self.open)
    @rule()
    def neutral(self) -> None:
        if self.probe_since is not None:
            self.probe_since, self.free_from = None, self.clock.now
        self.breaker.record_neutral()

    @invariant()
    def says_whether_it_is_closed(self) -> None:
        assert (self.breaker.state is BreakerState.CLOSED) is not self.open


Model.TestCase.settings = hypothesis_settings(max_examples=100, deadline=None)


class TestAnyHistory(Model.TestCase):  # type: ignore[misc, name-defined]
    """Whatever happens in whatever order, the breaker does what the model does."""
