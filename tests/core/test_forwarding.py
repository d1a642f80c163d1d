"""`Forwarder`: rows leave in order and are settled by the answer (F7 to F10; O3 to O8)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    ErrorCategory,
    RejectedError,
    Sent,
)
from dispatchers._models.envelope import encode
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.forwarding import Fate, Forwarder, HeldRow, Settled, Source, Step
from dispatchers.testing import processes

Answer = Callable[[DispatchRequest], None]


class Rows(Source):
    """A store in memory."""

    def __init__(self, *lanes: str) -> None:
        self.rows = {n: _row(n, lane) for n, lane in enumerate(lanes)}
        self.dead: list[int] = []
        self.settled: list[list[tuple[int, str]]] = []
        self.leads = True
        self.fails: Exception | None = None
        self.left = 0

    def lead(self) -> bool:
        if self.fails is not None:
            raise self.fails
        return self.leads

    def leave(self) -> None:
        self.left += 1

    def take(
        self, limit: int, *, but_lanes: Collection[str], but_rows: Collection[int]
    ) -> Sequence[HeldRow]:
        rows = [self.rows[seq] for seq in sorted(self.rows)]
        return [r for r in rows if r.lane not in but_lanes and r.seq not in but_rows][:limit]

    def settle(self, settled: Sequence[Settled]) -> None:
        self.settled.append([(each.row.seq, each.fate.value) for each in settled])
        for each in settled:
            if each.fate is not Fate.STAYS:
                del self.rows[each.row.seq]
            if each.fate is Fate.DEAD:
                self.dead.append(each.row.seq)

    def is_empty(self) -> bool:
        return not self.rows


def _row(number: int, lane: str) -> HeldRow:
    request = DispatchRequest(task="t", payload={"n": number}, id=f"r{number}")
    return HeldRow(number, encode(request), lane)


class Broker(BaseDispatcher):
    """Notes each hand-over, and answers as the test says."""

    name = "broker"
    contract = 1
    capabilities = Capabilities(confirmed=True, batch=True)

    def __init__(self, answer: Answer = lambda request: None, **options: Any) -> None:
        super().__init__(alias="broker", **{"breaker": False, **options})
        self.answer = answer
        self.calls: list[list[str]] = []

    @property
    def ids(self) -> list[str]:
        return [each for call in self.calls for each in call]

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        answer = self._send_many([(request, body)], timeout=timeout)[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send_many(self, items: Any, *, timeout: float) -> list[Sent | Exception]:
        self.calls.append([request.id for request, _ in items])
        return [self._one(request) for request, _ in items]

    def _one(self, request: DispatchRequest) -> Sent | Exception:
        try:
            self.answer(request)
        except Exception as exc:  # noqa: BLE001 - the answer to one item
            return exc
        return Sent(request.id)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return True


class Ordered(Broker):
    """The same, which stops at the first that it does not take."""

    stops_at_failure = True

    def _send_in_order(self, items: Any, *, timeout: float) -> list[Sent | Exception]:
        self.calls.append([])
        results: list[Sent | Exception] = []
        for request, _ in items:
            self.calls[-1].append(request.id)
            results.append(self._one(request))
            if self._may_be_repeated(results[-1]):
                break
        return results


def refusing(
    *ids: str, category: ErrorCategory = ErrorCategory.UNAVAILABLE, times: int = 99
) -> Answer:
    """Reject these requests so many times each."""
    left = dict.fromkeys(ids, times)

    def answer(request: DispatchRequest) -> None:
        if left.get(request.id, 0) > 0:
            left[request.id] -= 1
            raise RejectedError(category, "not now")

    return answer


def drained(forwarder: Forwarder) -> None:
    processes.wait_until(lambda: forwarder.step() is Step.EMPTY, "it does not come to an end")


# F7: nothing confirmed is lost.


def test_rows_go_when_they_are_taken():
    """F7: and are settled together."""
    rows, broker = Rows("a", "b", "c"), Broker()

    step = Forwarder(rows, broker).step()

    assert (step, broker.calls, rows.settled) == (
        Step.MOVED,
        [["r0", "r1", "r2"]],
        [[(0, "gone"), (1, "gone"), (2, "gone")]],
    )


def test_what_is_in_doubt_stays_and_is_repeated_under_its_id():
    """F7: as long as it takes, whatever the doubt is about."""
    left = [3]

    def answer(request: DispatchRequest) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionResetError("cut")

    rows, broker = Rows("a"), Broker(answer)
    drained(Forwarder(rows, broker))

    assert broker.ids == ["r0"] * 4
    assert rows.dead == []


@pytest.mark.parametrize(
    "category",
    [
        "unavailable",
        "timeout",
        "throttled",
        "capacity",
        "authentication",
        "permission",
        "not_found",
    ],
)
def test_what_may_be_taken_later_stays(category):
    """F7: also what an operator has to mend first."""
    rows = Rows("a")
    broker = Broker(refusing("r0", category=ErrorCategory(category), times=3))
    drained(Forwarder(rows, broker))

    assert (broker.ids, rows.dead) == (["r0"] * 4, [])


@pytest.mark.dispatchers_unchecked  # the letter tells
@pytest.mark.parametrize("category", ["invalid", "too_large", "unsupported", "conflict"])
def test_what_is_never_taken_is_dead(category):
    """O8: at once, and its lane goes on."""
    rows = Rows("a", "a")
    broker = Broker(refusing("r0", category=ErrorCategory(category)))
    drained(Forwarder(rows, broker))

    assert (broker.ids, rows.dead) == (["r0", "r1"], [0])


def test_a_body_that_is_no_envelope_is_dead():
    """O8: without being handed over."""
    rows, broker = Rows("a", "a"), Broker()
    rows.rows[0] = HeldRow(0, b"{", "a")
    drained(Forwarder(rows, broker))

    assert (broker.ids, rows.dead) == (["r1"], [0])


# F8: order.


def test_no_two_of_a_lane_leave_together():
    """F8: the later one would arrive although the earlier one was refused."""
    rows, broker = Rows("a", "a", "b", "a"), Broker()
    drained(Forwarder(rows, broker))

    assert broker.calls == [["r0", "r2"], ["r1"], ["r3"]]


def test_what_stays_holds_back_its_lane_only():
    """F8: also what was taken from the store together with it."""
    rows = Rows("a", "b", "a", "b")
    broker = Broker(refusing("r0", category=ErrorCategory.THROTTLED, times=1))
    drained(Forwarder(rows, broker))

    assert broker.ids == ["r0", "r1", "r3", "r0", "r2"]


def test_without_lanes_all_leave_together():
    """F8: in one round trip, in order of the store."""
    rows, broker = Rows("a", "a", "a"), Broker()
    Forwarder(rows, broker, in_lanes=False).step()

    assert broker.calls == [["r0", "r1", "r2"]]


def test_without_lanes_a_row_that_waits_holds_back_none():
    """F8: the others go on while it waits."""
    rows = Rows("a", "a", "a")
    broker = Broker(refusing("r0", category=ErrorCategory.THROTTLED, times=1))
    forwarder = Forwarder(rows, broker, in_lanes=False)
    forwarder.step()

    assert list(rows.rows) == [0]
    drained(forwarder)


# The backend is away.


def test_while_it_is_away_one_row_is_tried():
    """O4: the first failure ends the step, and the next tries are of one row each."""
    rows = Rows(*"aabbcc")
    broker = Broker(refusing(*(f"r{n}" for n in range(6))))
    forwarder = Forwarder(rows, broker)
    forwarder.step()
    for _ in range(3):
        for backoff in forwarder._backoffs.values():
            backoff.until = 0.0
        forwarder.step()

    assert [len(call) for call in broker.calls] == [3, 1, 1, 1]
    assert forwarder.is_pausing


def test_pauses_grow_up_to_the_breakers():
    """O4: a probe every `reset` seconds, however long it takes."""
    rows = Rows("a")
    broker = Broker(refusing("r0"), breaker={"failures": 1, "reset": 0.4})
    forwarder = Forwarder(rows, broker)
    pauses = []
    for _ in range(6):
        forwarder._backoffs.clear()
        forwarder.step()
        pauses.append(forwarder._pause)

    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.4, 0.4]
    assert len(broker.calls) == 1  # the breaker answers for the others


@pytest.mark.parametrize(("reset", "most"), [(1.0, 1.0), (3600.0, 5.0)])
def test_a_lane_is_tried_as_often_however_long_the_backend_is_away(monkeypatch, reset, most):
    """O4, F10: its first row is the only probe that there is; each fifth second, or `reset`."""
    now = [1000.0]
    monkeypatch.setattr("dispatchers.forwarding.monotonic", lambda: now[0])
    broker = Broker(refusing("r0"), breaker={"failures": 99, "reset": reset})
    forwarder = Forwarder(Rows("a", "a"), broker)
    tried = []
    while now[0] < 1100.0:
        before, step = len(broker.calls), forwarder.step()
        tried += [now[0]] * (len(broker.calls) - before)
        now[0] += forwarder._until_next(step)

    assert max(later - earlier for earlier, later in pairwise(tried)) <= most


def test_a_backend_that_is_said_to_be_back_is_tried_at_once(monkeypatch):
    """F10: whatever its rows have to wait; those that were refused for themselves wait on."""
    away = {"r0": ErrorCategory.UNAVAILABLE, "r1": ErrorCategory.THROTTLED}

    def answer(request: DispatchRequest) -> None:
        if category := away.get(request.id):
            raise RejectedError(category, "not now")

    rows, broker = Rows("a", "b"), Broker(answer)
    forwarder = Forwarder(rows, broker)
    monkeypatch.setattr(forwarder, "start", lambda: None)
    forwarder.step()
    for backoff in forwarder._backoffs.values():
        backoff.until += 1000.0
    away.clear()
    forwarder.wake()
    forwarder.step()
    forwarder.step()

    assert (broker.ids, list(rows.rows)) == (["r0", "r1", "r0"], [1])


def test_when_it_is_back_all_go_on_at_once():
    """F10: those that were refused while it was away wait no longer."""
    away = [True]

    def answer(request: DispatchRequest) -> None:
        if away[0]:
            raise RejectedError(ErrorCategory.UNAVAILABLE, "away")

    rows, broker = Rows("a", "b", "c", "d"), Broker(answer)
    forwarder = Forwarder(rows, broker)
    forwarder.step()
    for backoff in forwarder._backoffs.values():
        backoff.until += 1000.0
    del forwarder._backoffs[0]
    away[0] = False
    forwarder.step()
    forwarder.step()

    assert not rows.rows
    assert not forwarder.is_pausing


def test_an_error_of_the_store_is_survived(caplog):
    """O6: it is tried again, and said once."""
    rows, broker = Rows("a"), Broker()
    rows.fails = OSError("the disk is gone")
    forwarder = Forwarder(rows, broker)
    forwarder.start()
    processes.wait_until(lambda: forwarder.is_pausing, "the error is not seen")
    rows.fails = None
    processes.wait_until(rows.is_empty, "it does not go on")
    forwarder.stop(5)

    assert "what is held for 'broker' could not be handed over: OSError" in caplog.text


def test_an_error_of_the_store_says_what_to_do(caplog):
    """O6: an operator reads the database's own words, where its category is known."""
    rows = Rows("a")
    rows.category = lambda exc: ErrorCategory.NOT_FOUND
    for error in (OSError("no such table"), RejectedError(ErrorCategory.NOT_FOUND, "no file")):
        rows.fails = error
        Forwarder(rows, Broker())._survived()

    assert "OSError: no such table" in caplog.text
    assert "could not be handed over: no file" in caplog.text


def test_a_thread_that_cannot_be_started_is_tried_again(monkeypatch, caplog):
    """C7: a commit never fails for it, as while the interpreter ends; what is held stays."""
    rows, broker = Rows("a"), Broker()
    forwarder = Forwarder(rows, broker)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        forwarder.notice()
    forwarder.notice()
    processes.wait_until(rows.is_empty, "it does not go on")
    forwarder.stop(5)

    assert "can't start new thread; a relay hands it over" in caplog.text


# Who drains it.


def test_a_store_that_another_process_drains_is_left_alone():
    """O7: nothing is taken from it."""
    rows, broker = Rows("a"), Broker()
    rows.leads = False

    assert Forwarder(rows, broker).step() is Step.ELSEWHERE
    assert broker.calls == []


def test_two_threads_do_not_step_at_once():
    """F8: the thread of a process and a relay in it would hand rows over twice."""
    inside, go_on = threading.Event(), threading.Event()

    def answer(request: DispatchRequest) -> None:
        inside.set()
        go_on.wait(30)

    forwarder = Forwarder(Rows("a"), Broker(answer, deadline=60.0))
    thread = threading.Thread(target=forwarder.step)
    thread.start()
    inside.wait(30)
    meanwhile = forwarder.step()
    go_on.set()
    thread.join(30)

    assert meanwhile is Step.ELSEWHERE


def test_a_thread_does_not_leave_the_store_under_another_one():
    """F7: what the other one settles would be void, and handed over again."""
    inside, go_on = threading.Event(), threading.Event()

    def answer(request: DispatchRequest) -> None:
        inside.set()
        go_on.wait(30)

    rows = Rows("a")
    forwarder = Forwarder(rows, Broker(answer, deadline=60.0))
    thread = threading.Thread(target=forwarder.step)
    thread.start()
    inside.wait(30)
    forwarder.leave()
    meanwhile = rows.left
    go_on.set()
    thread.join(30)
    forwarder.leave()

    assert (meanwhile, rows.left) == (0, 1)


def test_the_thread_ends_while_another_process_drains():
    """Once nothing is held: it would look every second, with a connection, for ever."""
    rows, broker = Rows(), Broker()
    rows.leads = False
    forwarder = Forwarder(rows, broker)
    forwarder.start()

    processes.wait_until(lambda: forwarder._thread is None, "the thread goes on")
    assert forwarder.step() is Step.EMPTY


def test_the_thread_does_not_end_over_what_was_put():
    """F10: also while the backend is away, which is not tried sooner for it."""
    forwarder = Forwarder(Rows(), Broker())
    forwarder._thread = threading.current_thread()
    forwarder._pause = 1.0
    forwarder.notice()

    assert not forwarder._ends()


def test_it_leaves_the_store_when_it_ends():
    """O11: another process need not wait for the lease."""
    rows = Rows("a")
    Forwarder(rows, Broker()).run(lambda: False, drain=True)

    assert (rows.left, rows.is_empty()) == (1, True)


def test_the_thread_ends_and_begins_again():
    """F10: a thread lives as long as there is something to do, and a little longer."""
    rows, broker = Rows("a"), Broker()
    forwarder = Forwarder(rows, broker)
    forwarder.start()
    processes.wait_until(lambda: forwarder._thread is None, "it stays although nothing is held")
    rows.rows[1] = _row(1, "a")
    forwarder.wake()
    processes.wait_until(rows.is_empty, "it does not begin again")
    forwarder.stop(5)

    assert broker.ids == ["r0", "r1"]


# A backend whose batches stop at their first failure.


@pytest.mark.parametrize("backend", [FailoverDispatcher, SpillDispatcher])
def test_a_lane_keeps_its_order_before_members_that_stop_at_failures(backend, tmp_path):
    """F8: what stands between says nothing of its batches, and so gets one piece after the other.

    Of a batch its first member takes a part, and the next member, or the file, any of the rest.
    """
    taken: list[str] = []
    failed: set[str] = set()

    def answer(request: DispatchRequest) -> None:
        if request.id == "r1" and request.id not in failed:
            failed.add(request.id)
            raise RejectedError(ErrorCategory.PERMISSION, "not yet")
        taken.append(request.id)

    rows, member = Rows(*"aaaa"), Ordered(answer)
    options = {"path": str(tmp_path / "spill")} if backend is SpillDispatcher else {}
    between = backend(to=member, alias="between", **options)
    forwarder = Forwarder(rows, between)
    while rows.rows:
        for backoff in forwarder._backoffs.values():
            backoff.until = 0.0
        forwarder.step()
    between.close()

    assert not between.stops_at_failure
    assert taken == ["r0", "r1", "r2", "r3"]


def test_a_lane_leaves_in_one_batch_that_stops_at_failures():
    """F8: one call for all of a lane, where nothing of it is taken after what is not."""
    broker = Ordered()
    rows = Rows(*"aaba")
    assert Forwarder(rows, broker).step() is Step.MOVED
    assert broker.calls == [["r0", "r1", "r2", "r3"]]
    assert not rows.rows


def test_others_go_on_after_a_row_that_stops_the_batch():
    """F8: the lane of the row waits, and the rows of others that were not tried have their turn."""
    broker = Ordered(refusing("r1", category=ErrorCategory.THROTTLED))
    rows = Rows(*"aaabb")
    Forwarder(rows, broker).step()
    assert broker.calls == [["r0", "r1"], ["r3"], ["r4"]]
    assert sorted(rows.rows) == [1, 2]
    assert rows.settled == [[(0, "gone"), (1, "stays"), (3, "gone"), (4, "gone")]]


@pytest.mark.dispatchers_unchecked
def test_a_dead_row_stops_no_batch():
    """F8, O8: what is never taken holds up nothing of its lane."""
    broker = Ordered(refusing("r1", category=ErrorCategory.CONFLICT))
    rows = Rows(*"aaa")
    Forwarder(rows, broker).step()
    assert broker.calls == [["r0", "r1", "r2"]]
    assert (rows.dead, rows.rows) == ([1], {})


def test_a_batch_in_doubt_is_repeated_in_order():
    """F7, F8: what was in a batch that broke off goes again, in order, under the same ids."""

    def answer(request: DispatchRequest) -> None:
        if broken[0] and request.id >= "r2":
            raise ConnectionResetError("cut")

    class Cut(Ordered):
        def _send_in_order(self, items: Any, *, timeout: float) -> list[Sent | Exception]:
            self.calls.append([request.id for request, _ in items])
            return [self._one(request) for request, _ in items]  # the rest is in doubt as well

    broken = [True]
    broker = Cut(answer)
    rows = Rows(*"aaaaab")
    forwarder = Forwarder(rows, broker)
    forwarder.step()
    assert sorted(rows.rows) == [2, 3, 4, 5]
    assert rows.settled == [[(0, "gone"), (1, "gone"), (2, "stays")]]

    broken[0] = False
    while forwarder.step() is not Step.EMPTY:
        pass
    lane = [each for each in broker.ids[6:] if each != "r5"]
    assert lane == ["r2", "r3", "r4"]


def test_a_backend_that_is_away_costs_one_batch():
    """O5: it is not tried lane by lane, which would cost a deadline each."""
    broker = Ordered(refusing(*(f"r{n}" for n in range(4))))
    forwarder = Forwarder(Rows(*"abcd"), broker)
    assert forwarder.step() is Step.WAITING
    assert broker.calls == [["r0"]]
    assert forwarder.is_pausing


def test_a_forwarder_that_keeps_more_sends_lanes_one_by_one():
    """F8: where a conflict stays, the backend would go on after it."""
    broker = Ordered(refusing("r0", category=ErrorCategory.CONFLICT))
    Forwarder(Rows(*"aa"), broker, never=[ErrorCategory.INVALID]).step()
    assert broker.ids == ["r0"]


def test_lanes_keep_their_order_in_batches(monkeypatch):
    """F8: whatever is refused, and in doubt, on the way."""
    monkeypatch.setattr("dispatchers.forwarding.LONGEST_BACKOFF", 0.01)
    monkeypatch.setattr("dispatchers.forwarding.LONGEST_PAUSE", 0.01)
    chance = random.Random(8)
    took: list[str] = []

    def answer(request: DispatchRequest) -> None:
        if chance.random() < 0.1:
            raise RejectedError(ErrorCategory.THROTTLED, "not now")
        if chance.random() < 0.1:
            raise ConnectionResetError("cut")
        took.append(request.id)

    lanes = [chance.choice("abc") for _ in range(200)]
    forwarder = Forwarder(Rows(*lanes), Ordered(answer), batch=50)
    while forwarder.step() is not Step.EMPTY:
        pass
    for lane in "abc":
        wanted = [f"r{n}" for n, each in enumerate(lanes) if each == lane]
        assert [each for each in took if each in wanted] == wanted
