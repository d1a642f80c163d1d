"""`failover`: members in order, under one deadline, and only for what is certain (F1 to F4)."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
    Sent,
    check,
    configure,
    get_dispatcher,
    hooks,
    override,
)
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.testing import RecordingDispatcher, tasks


def recording(alias: str, **options: Any) -> RecordingDispatcher:
    return RecordingDispatcher(alias=alias, **{"deadline": 4.0, **options})


def held(member: RecordingDispatcher) -> list[str]:
    """The ids of what a member has, delayed work too."""
    return [job.dispatched.request.id for job in member._book.waiting]


def request(**options: Any) -> DispatchRequest:
    return DispatchRequest(task="shop.mail", payload={"n": 1}, **options)


def single(dispatcher: BaseDispatcher, given: DispatchRequest) -> DispatchResponse:
    return dispatcher.dispatch(given)


def many(dispatcher: BaseDispatcher, given: DispatchRequest) -> DispatchResponse:
    return dispatcher.dispatch_many([given, request()])[0]


def asingle(dispatcher: BaseDispatcher, given: DispatchRequest) -> DispatchResponse:
    return asyncio.run(dispatcher.adispatch(given))


def amany(dispatcher: BaseDispatcher, given: DispatchRequest) -> DispatchResponse:
    return asyncio.run(dispatcher.adispatch_many([given, request()]))[0]


every_way = pytest.mark.parametrize("way", [single, many, asingle, amany])
Way = Callable[[BaseDispatcher, DispatchRequest], DispatchResponse]


class Clock:
    """The time of the dispatch path, which passes when a test says so, too."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in ("_dispatch.base", "_dispatch.batch", "backends._passage", "backends._passing"):
        monkeypatch.setattr(f"dispatchers.{module}.monotonic", found)
    return found


class SlowOptions(BackendOptions):
    deadline: float = 4.0


class Slow(BaseDispatcher):
    """Takes as long as it may, and then certainly has not taken it."""

    Options = SlowOptions

    name = "slow"
    contract = 1
    capabilities = Capabilities()

    def __init__(self, clock: Clock, **settings: Any) -> None:
        super().__init__(**settings)
        self.clock = clock
        self.given: list[float] = []

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Any:
        self.given.append(timeout)
        self.clock.ahead += timeout
        raise TimeoutError("nothing came back")

    def _category(self, exc: Exception) -> None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return False


# F1: only what is certain moves.


@every_way
def test_the_first_member_has_it_where_it_can(way: Way):
    """F3: without trouble the answer is the first member's, and nothing was passed over."""
    first, second = recording("first"), recording("second")

    response = way(FailoverDispatcher(to=[first, second]), request())

    assert (response.dispatcher, response.backend, response.passed) == ("first", "recording", ())
    assert not held(second)


@every_way
@pytest.mark.parametrize(
    "category", ["unavailable", "timeout", "throttled", "capacity", "closed", "authentication"]
)
def test_what_was_certainly_rejected_goes_to_the_next(way: Way, category: str):
    """F1, F3: a rejection that says nothing of the request moves it on, and the answer tells."""
    first, second = recording("first"), recording("second")
    asked = request()
    first.fail_when(lambda given: given.id == asked.id, category=category)

    response = way(FailoverDispatcher(to=[first, second]), asked)

    assert (response.status, response.dispatcher) == (DispatchStatus.ACCEPTED, "second")
    assert [(p.dispatcher, p.error.category) for p in response.passed] == [("first", category)]
    assert asked.id in held(second)
    assert asked.id not in held(first)


@every_way
def test_after_unknown_no_other_member_gets_it(way: Way):
    """F1, O13: what may have been taken goes to no other member."""
    first, second = recording("first"), recording("second")
    asked = request()
    first.fail_when(lambda given: given.id == asked.id, status="unknown", arrives=True)

    response = way(FailoverDispatcher(to=[first, second]), asked)

    assert (response.status, response.dispatcher) == (DispatchStatus.UNKNOWN, "first")
    assert response.request is asked
    assert asked.id not in held(second)


@every_way
@pytest.mark.parametrize("category", ["invalid", "permission", "not_found", "conflict"])
def test_a_rejection_of_the_request_itself_ends_it(way: Way, category: str):
    """F1: what the next member would refuse too, or should not be asked for, does not move on."""
    first, second = recording("first"), recording("second")
    asked = request()
    first.fail_when(lambda given: given.id == asked.id, category=category)

    response = way(FailoverDispatcher(to=[first, second]), asked)

    assert response.status is DispatchStatus.REJECTED
    assert response.error.category == category
    assert asked.id not in held(second)


def test_the_categories_are_an_option():
    """F1: `on` says after which rejections the next member is asked."""
    first, second = recording("first"), recording("second")
    only = FailoverDispatcher(to=[first, second], on=["permission"])

    first.fail_next(category="permission")
    moved = only.dispatch(request())
    first.fail_next(category="unavailable")
    stayed = only.dispatch(request())

    assert (moved.dispatcher, stayed.status) == ("second", DispatchStatus.REJECTED)


@every_way
def test_rejected_by_all_says_so_of_each(way: Way):
    """O14: the answer has the category of the last one, and the errors of all."""
    first, second, asked = recording("first"), recording("second"), request()
    first.fail_when(lambda given: given.id == asked.id, category="unavailable")
    second.fail_when(lambda given: given.id == asked.id, category="capacity")

    response = way(FailoverDispatcher(to=[first, second], alias="both"), asked)

    assert (response.status, response.dispatcher) == (DispatchStatus.REJECTED, "both")
    assert response.error.category is ErrorCategory.CAPACITY
    assert response.error.retryable
    assert [p.error.category for p in response.passed] == ["unavailable", "capacity"]


def test_a_task_that_fails_in_the_call_has_run(tmp_path):
    """F1: work that ran here and failed goes to nobody else."""
    second = recording("second")
    made = FailoverDispatcher(to=[InlineDispatcher(alias="here"), second])

    response = made.dispatch(tasks.fail.request(str(tmp_path / "journal"), 1))

    assert (response.status, response.dispatcher) == (DispatchStatus.FAILED, "here")
    assert not held(second)


def test_unknown_may_move_on_where_workers_notice(tmp_path):
    """F1: `unknown = "next"` hands over again, under the same id."""
    store = f"sqlite:{tmp_path / 'keys.db'}"
    first, second = recording("first", idempotency=store), recording("second", idempotency=store)
    made = FailoverDispatcher(to=[first, second], unknown="next")
    first.fail_next(status="unknown", arrives=True)

    response = made.dispatch(request())

    assert (response.status, response.dispatcher) == (DispatchStatus.ACCEPTED, "second")
    assert [*held(first), *held(second)] == [response.request_id] * 2


def test_unknown_stays_unknown_where_the_others_reject(tmp_path):
    """F1: a rejection of a later member does not make certain what is in doubt."""
    store = f"sqlite:{tmp_path / 'keys.db'}"
    first, second = recording("first", idempotency=store), recording("second", idempotency=store)
    made = FailoverDispatcher(to=[first, second], unknown="next")
    first.fail_next(status="unknown")
    second.fail_next()

    response = made.dispatch(request())

    assert (response.status, response.dispatcher) == (DispatchStatus.UNKNOWN, "first")


@pytest.mark.parametrize("stores", [(None, None), ("memory", "memory"), ("sqlite:a", "sqlite:b")])
def test_unknown_moves_on_only_with_one_store(stores):
    """F1: repeats that no worker would notice are refused at the start."""
    members = [recording(f"m{n}", idempotency=store) for n, store in enumerate(stores)]

    with pytest.raises(ConfigurationError, match="share no idempotency store"):
        FailoverDispatcher(to=members, unknown="next")


@every_way
def test_what_is_too_large_for_one_may_fit_another(way: Way):
    """F4: a limit is the member's own."""
    first, second, asked = recording("first"), recording("second"), request()
    first.fail_when(lambda given: given.id == asked.id, category="too_large")

    assert way(FailoverDispatcher(to=[first, second]), asked).dispatcher == "second"


# F2: one deadline.


@every_way
def test_members_share_one_deadline(way: Way, clock: Clock):
    """F2: a member gets what is left, minus 50 ms for each one after it."""
    slow, slower, last = Slow(clock, alias="slow"), Slow(clock, alias="slower"), recording("last")
    made = FailoverDispatcher(to=[slow, slower, last])

    response = way(made, request())

    # 50 ms of the first for each of two others; of what is left then, 50 ms for the last.
    assert 0 < slow.given[0] <= 3.9
    assert all(0 < given <= 0.05 for given in slower.given)
    assert [each.error.category for each in response.passed[:2]] == ["timeout"] * 2


def test_a_request_brings_its_own_deadline(clock: Clock):
    """F2: a deadline of the request is for all members together."""
    slow, last = Slow(clock, alias="slow"), recording("last")

    response = FailoverDispatcher(to=[slow, last]).dispatch(request(deadline=3.0))

    assert slow.given[0] <= 2.95
    assert response.request.deadline == 3.0


def test_a_member_keeps_its_own_shorter_deadline(clock: Clock):
    """F2: a failover with much time does not make a member slower than it is configured."""
    slow = Slow(clock, alias="slow", deadline=0.05)

    FailoverDispatcher(to=[slow, recording("last")], deadline=60.0).dispatch(request())

    assert slow.given[0] <= 0.05


def test_the_deadline_is_that_of_the_slowest_member():
    """F2: without one of its own a failover waits as long as its members may."""
    members = [recording("one", deadline=3.0), recording("other", deadline=5.0)]

    assert FailoverDispatcher(to=members).options.deadline == 5.0


def test_a_deadline_that_hides_late_members_is_refused():
    """F2: where lateness would never count, a black hole would cost every dispatch its time."""
    with pytest.raises(ConfigurationError, match=r"give 'one' deadline = 0\.5"):
        FailoverDispatcher(to=[recording("one", deadline=2.0)], deadline=0.5)


def test_a_member_that_is_always_late_is_left_alone(clock: Clock):
    """F2: the little time that is kept for others does not keep a breaker from opening."""
    slow = Slow(clock, alias="slow", breaker={"failures": 2, "reset": 600.0})
    made = FailoverDispatcher(to=[slow, recording("last")])

    answers = [made.dispatch(request()) for _ in range(4)]

    assert [each.dispatcher for each in answers] == ["last"] * 4
    assert [each.passed[0].error.category for each in answers] == [
        "timeout",
        "timeout",
        "circuit_open",
        "circuit_open",
    ]
    assert len(slow.given) == 2


@pytest.mark.parametrize("way", [asingle, amany])
def test_a_run_in_a_member_is_not_cut(way: Way):
    """C2: the deadline is for handing over, also behind a failover."""

    class Slowly(InlineDispatcher):
        async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Any:
            await asyncio.sleep(0.4)
            return Sent(status=DispatchStatus.EXECUTED)

    made = FailoverDispatcher(to=[Slowly(alias="here", deadline=0.05)])

    assert way(made, request()).status is DispatchStatus.EXECUTED


# F4: capabilities are of whom it goes to.


@every_way
def test_a_member_that_cannot_is_passed_over_if_another_can(way: Way):
    """F4: a delay goes to the member that can hold it back."""
    first, second = recording("first", lacks=["delay"]), recording("second")

    response = way(FailoverDispatcher(to=[first, second]), request(delay=timedelta(minutes=1)))

    assert response.dispatcher == "second"
    assert response.passed[0].error.category is ErrorCategory.UNSUPPORTED


def test_what_none_can_is_unsupported():
    """F4: the answer says it before any member is asked."""
    members = [recording("first", lacks=["delay"]), recording("second", lacks=["delay"])]

    response = FailoverDispatcher(to=members).dispatch(request(delay=timedelta(minutes=1)))

    assert response.error.category is ErrorCategory.UNSUPPORTED
    assert not any(map(held, members))


def test_nothing_is_waived_by_failing_over():
    """F4: a member that would leave the delay out does not get what another could hold back."""
    able, careless = recording("able"), recording("careless", lacks=["delay"], waive=["delay"])
    able.fail_next()

    response = FailoverDispatcher(to=[able, careless]).dispatch(request(delay=timedelta(minutes=1)))

    assert response.error.category is ErrorCategory.UNAVAILABLE
    assert response.error.retryable
    assert not held(careless)


def test_what_no_member_can_is_waived_where_one_says_so():
    """C6: a member's own `waive` holds, and the answer lists it."""
    member = recording("careless", lacks=["delay"], waive=["delay"])

    response = FailoverDispatcher(to=[member]).dispatch(request(delay=timedelta(minutes=1)))

    assert (response.status, response.waived) == (DispatchStatus.ACCEPTED, ("delay",))


def test_members_together_can_what_one_can_and_promise_what_all_do():
    """C6: the options of any, the promises of all."""
    one, other = recording("one", lacks=["delay"]), InlineDispatcher(alias="other")

    can = FailoverDispatcher(to=[one, other]).capabilities

    assert (can.delay, can.priority, can.queues) == (False, True, True)
    assert (can.retries, can.durable, can.confirmed) == (False, False, True)


# Log and hooks.


def test_hooks_and_log_hear_of_one_dispatch(caplog):
    """C4: members that pass work on are no failures of their own."""
    first, second = recording("first"), recording("second")
    before, after = [], []
    kept = [hooks.before_dispatch(before.append), hooks.after_dispatch(after.append)]
    first.fail_next(times=3)
    made = FailoverDispatcher(to=[first, second])

    with caplog.at_level(logging.DEBUG, "dispatchers"):
        single, *batch = made.dispatch(request()), *made.dispatch_many([request(), request()])
    for hook in kept:
        hooks.remove(hook)

    assert after == [single, *batch]
    assert [each.id for each in before] == [each.request_id for each in after]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_dispatch_within_a_run_is_told(tmp_path):
    """C4: what a handler dispatches while it runs in a member is a dispatch of its own."""
    after: list[DispatchResponse] = []
    inner = recording("inner")

    class Nesting(InlineDispatcher):
        def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Any:
            inner.dispatch(DispatchRequest(task="shop.inner"))
            return super()._send(request, body, timeout=timeout)

    made = FailoverDispatcher(to=[Nesting(alias="here")])
    hook = hooks.after_dispatch(after.append)
    made.dispatch(tasks.fail.request(str(tmp_path / "journal"), 1))
    hooks.remove(hook)

    assert [each.dispatcher for each in after] == ["inner", "here"]


# Configuration.


def test_members_are_named_by_alias():
    """The members of a configured failover are the target's own dispatchers."""
    with override(
        default={"backend": "failover", "to": ["a", "b"]}, a="memory", b={"backend": "memory"}
    ):
        made = get_dispatcher()

        assert made.members == (get_dispatcher("a"), get_dispatcher("b"))
        assert made.dispatch(request()).dispatcher == "a"


def test_a_member_that_is_replaced_takes_the_failover_with_it():
    """A failover never holds on to a member that was closed."""
    with override(default={"backend": "failover", "to": ["a", "b"]}, a="memory", b="memory"):
        before = get_dispatcher()
        with override(b="null"):
            inner = get_dispatcher()
            other = inner.members[1].name
        after = get_dispatcher()

    assert (inner is before, other, after is before) == (False, "null", True)


def test_what_does_not_change_stays():
    """Another alias that changes does not rebuild a failover."""
    with override(default={"backend": "failover", "to": ["a"]}, a="memory", b="memory"):
        before = get_dispatcher()
        with override(b="null"):
            assert get_dispatcher() is before


def test_a_member_given_as_another_object_takes_the_failover_with_it():
    """A failover is bound to the objects in force, not to those under the same names before."""
    one, other = recording("a"), recording("a")
    with override(default={"backend": "failover", "to": ["a"]}, a=one):
        get_dispatcher()
        with override(a=other):
            get_dispatcher().dispatch(request())

    assert (len(held(one)), len(held(other))) == (0, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": ["default"]}, "names itself"),
        ({"to": ["brokr"]}, "no dispatcher 'brokr'.*'broker'"),
        ({"to": []}, "default.to .*needs at least 1 item, and has none"),
        ({}, "to"),
        ({"to": ["broker", "broker"]}, "twice"),
        ({"to": [3]}, "takes aliases"),
        ({"to": ["broker"], "on": ["unavailabel"]}, "'unavailable'"),
        ({"to": ["broker"], "waive": ["delay"]}, "members"),
        ({"to": ["loop"]}, "circle: default -> loop -> default"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(options, words):
    """C12: names that lead nowhere, or in a circle, are errors of the start-up check."""
    settings = {
        "default": {"backend": "failover", **options},
        "broker": {"backend": "memory"},
        "loop": {"backend": "failover", "to": ["default"]},
    }
    try:
        with pytest.raises(ConfigurationError, match=words):
            _configured(settings)
    finally:
        configure()


def _configured(aliases: dict[str, dict[str, Any]]) -> None:
    configure({"targets": {"t": aliases}}, target="t")
    check()


def test_another_target_is_checked_with_its_own_members():
    """C12: `check --target` builds the members of that target, and closes them again."""
    other = {"default": {"backend": "failover", "to": ["far"]}, "far": {"backend": "memory"}}
    lost = {"default": {"backend": "failover", "to": ["far"]}}
    configure(
        {"targets": {"t": {"default": {"backend": "null"}}, "other": other, "lost": lost}},
        target="t",
    )
    try:
        check(target="other")
        with pytest.raises(ConfigurationError, match="'far'"):
            check(target="lost")
    finally:
        configure()


def test_responses_travel_as_json_and_pickles():
    """C3: `passed` is part of the response, in JSON both ways."""
    first, second = recording("first"), recording("second")
    first.fail_next()

    response = FailoverDispatcher(to=[first, second]).dispatch(request())

    assert DispatchResponse.model_validate_json(response.model_dump_json()) == response
    assert pickle.loads(pickle.dumps(response)).passed == response.passed


def test_closing_leaves_the_members_open():
    """The members are other dispatchers, which others use as well."""
    member = recording("member")
    made = FailoverDispatcher(to=[member])
    made.close()

    assert made.dispatch(request()).error.category is ErrorCategory.CLOSED
    assert member.dispatch(request()).ok


def test_a_failover_of_failovers_tells_all():
    """F3: members that are failovers themselves give the errors of their own."""
    one, two, three = recording("one"), recording("two"), recording("three")
    one.fail_next()
    two.fail_next()
    inner = FailoverDispatcher(to=[one, two], alias="inner")

    response = FailoverDispatcher(to=[inner, three]).dispatch(request())

    assert response.dispatcher == "three"
    assert [each.dispatcher for each in response.passed] == ["one", "two"]


def test_a_failover_within_another_adds_those_it_passed_over():
    """F3: in the order in which they were asked."""
    zero, one, two = recording("zero"), recording("one"), recording("two")
    zero.fail_next()
    one.fail_next()
    inner = FailoverDispatcher(to=[one, two], alias="inner")

    response = FailoverDispatcher(to=[zero, inner]).dispatch(request())

    assert response.dispatcher == "two"
    assert [each.dispatcher for each in response.passed] == ["zero", "one"]
