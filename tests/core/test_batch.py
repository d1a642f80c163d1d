"""`dispatch_many` and task batches: one deadline, one answer each, in order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    DispatchResponses,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
    Sent,
    hooks,
    override,
    task,
)
from dispatchers._dispatch import base, batch

from ..timing import within  # noqa: TID252 - as for the other cases

OVER = 0.25  # seconds of this thread

ACCEPTED, REJECTED, UNKNOWN = (
    DispatchStatus.ACCEPTED,
    DispatchStatus.REJECTED,
    DispatchStatus.UNKNOWN,
)


def named(*tasks: str) -> list[DispatchRequest]:
    return [DispatchRequest(task=name) for name in tasks]


def by_task(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
    """What becomes of a request stands in its task's name."""
    if request.task == "slow":
        time.sleep(timeout + 0.05)
    if request.task == "down":
        raise ConnectionError("down")
    return Sent(request.id)


def statuses(answers: DispatchResponses) -> list[DispatchStatus]:
    return [each.status for each in answers]


def many_both_ways(dispatcher: Any, requests: Any) -> list[DispatchResponses]:
    return [
        dispatcher.dispatch_many(requests),
        asyncio.run(dispatcher.adispatch_many(requests)),
    ]


def test_answers_stand_in_the_order_of_the_requests(adapter):
    """One each, whatever became of the others."""
    requests = named("a", "down", "b")
    requests.insert(1, DispatchRequest(task="late", delay=timedelta(1)))

    for answers in many_both_ways(adapter(by_task), requests):
        assert statuses(answers) == [ACCEPTED, REJECTED, UNKNOWN, ACCEPTED]
        assert [each.request for each in answers] == requests


def test_no_requests_are_no_answers(adapter):
    """Nothing is contacted, and nothing is wrong."""
    made = adapter()

    for answers in many_both_ways(made, []):
        assert list(answers) == []
        assert answers.ok
    assert made.asked == []


def test_sync_and_async_answers_are_equal(adapter):
    """C1 to C4 hold for both in the same way."""
    requests = named("a", "down", "b")
    made = adapter(by_task, breaker=False)

    sync, async_ = many_both_ways(made, requests)

    for left, right in zip(sync, async_, strict=True):
        assert left.model_dump(exclude={"elapsed"}) == right.model_dump(exclude={"elapsed"})


@pytest.mark.parametrize(
    "things", [None, 5, object(), DispatchRequest(task="t")], ids=["none", "int", "object", "one"]
)
def test_what_are_no_requests_is_an_answer(adapter, things):
    """C1: wrong types are the caller's fault."""
    for answers in many_both_ways(adapter(), things):
        assert [each.error.category for each in answers] == [ErrorCategory.INVALID]


def test_what_is_no_request_among_requests_is_an_answer_in_its_place(adapter):
    """C1: the others go."""
    (request,) = named("a")

    for answers in many_both_ways(adapter(), [request, None, "x", request]):
        assert statuses(answers) == [ACCEPTED, REJECTED, REJECTED, ACCEPTED]


def test_an_iterable_that_raises_is_an_answer_at_its_end(adapter):
    """C1: what came before is handed over; the rest was never seen."""

    def requests() -> Iterator[DispatchRequest]:
        yield from named("a", "b")
        raise KeyError("s3cret")

    for answers in (
        adapter().dispatch_many(requests()),
        asyncio.run(adapter().adispatch_many(requests())),
    ):
        assert statuses(answers) == [ACCEPTED, ACCEPTED, REJECTED]
        assert "KeyError" in answers[-1].error.message
        assert "s3cret" not in repr(answers)


def test_an_iterable_is_read_once(adapter):
    """A generator will do."""
    answers = adapter().dispatch_many(iter(named("a", "b")))

    assert statuses(answers) == [ACCEPTED, ACCEPTED]


def test_untried_items_are_rejected_when_the_deadline_is_over(adapter):
    """C3: one deadline for the call; what was not tried was certainly not handed over."""
    made = adapter(by_task, deadline=0.1, breaker=False)

    answers = made.dispatch_many(named("a", "slow", "b", "c"))

    assert statuses(answers) == [ACCEPTED, ACCEPTED, REJECTED, REJECTED]
    assert {each.error.category for each in answers.failed} == {ErrorCategory.TIMEOUT}
    assert all(each.error.retryable for each in answers.failed)
    assert [request.task for request, _, _ in made.asked] == ["a", "slow"]


def test_the_item_in_flight_at_the_deadline_is_unknown(adapter):
    """C2, C3: under the guard, and on the event loop."""
    answered = threading.Semaphore(0)

    def hang(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if request.task == "slow":
            answered.acquire(timeout=20)
        return Sent(request.id)

    # Longer than a busy machine takes for the first item.
    guarded = adapter(hang, guarded=True, deadline=1.0, maybe=False, breaker=False)
    plain = adapter(hang, deadline=1.0, maybe=False, breaker=False)
    requests = named("a", "slow", "b")

    for answers in (
        timed(guarded, requests, answered),
        asyncio.run(atimed(guarded, requests, answered)),
        asyncio.run(atimed(plain, requests, answered)),
    ):
        assert statuses(answers) == [ACCEPTED, UNKNOWN, REJECTED]


def timed(dispatcher: Any, requests: Any, answered: threading.Semaphore) -> DispatchResponses:
    with within(dispatcher.options.deadline):
        answers = dispatcher.dispatch_many(requests)
    answered.release()
    return answers


async def atimed(dispatcher: Any, requests: Any, answered: threading.Semaphore) -> Any:
    """Without the end of the loop, which waits for threads."""
    with within(dispatcher.options.deadline):
        answers = await dispatcher.adispatch_many(requests)
    answered.release()
    return answers


def test_the_shortest_deadline_among_the_requests_rules(adapter):
    """C2: nobody waits longer than any of them allows."""
    made = adapter(deadline=20.0)
    requests = [*named("a"), DispatchRequest(task="b", deadline=3.0)]

    made.dispatch_many(requests)

    assert all(timeout <= 3.0 for _, _, timeout in made.asked)


def test_an_open_breaker_answers_for_all(adapter):
    """C4: nothing is sent."""
    made = adapter(ConnectionError(), breaker={"failures": 1, "reset": 60.0})
    made.dispatch_many(named("a"))

    for answers in many_both_ways(made, named("a", "b")):
        assert {each.error.category for each in answers} == {ErrorCategory.CIRCUIT_OPEN}
    assert len(made.asked) == 1


class Native:
    """An adapter that hands over several at once."""

    def _send_many(
        self, items: Sequence[tuple[DispatchRequest, bytes]], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        self.batches.append([request.task for request, _ in items])
        return self.many(items)


@pytest.fixture
def native(adapter) -> Any:
    def make(many: Any, **options: Any) -> Any:
        members = {"batches": [], "many": staticmethod(many)}
        return adapter(bases=(Native,), members=members, **options)

    return make


@pytest.mark.parametrize("guarded", [True, False])
def test_a_backend_that_can_gets_all_in_one_call(native, guarded):
    """One round trip; what was refused before is not among them."""
    requests = [*named("a"), DispatchRequest(task="late", delay=timedelta(1)), *named("b")]
    made = native(lambda items: [Sent(request.id) for request, _ in items], guarded=guarded)

    for answers in many_both_ways(made, requests):
        assert statuses(answers) == [ACCEPTED, REJECTED, ACCEPTED]
        assert answers[2].task_id == requests[2].id
    assert made.batches == [["a", "b"]] * 2
    assert made.asked == []


def test_each_result_of_a_native_batch_is_judged_by_itself(native):
    """C3: exceptions stand in the place of their items."""

    def many(items: Any) -> list[Any]:
        return [
            Sent("1"),
            RejectedError(ErrorCategory.NOT_FOUND, "no queue"),
            ConnectionError("reset"),
            None,
            Sent("5"),
        ]

    for answers in many_both_ways(native(many, maybe=True), named(*"abcde")):
        assert statuses(answers) == [ACCEPTED, REJECTED, UNKNOWN, UNKNOWN, ACCEPTED]


def test_an_exception_of_a_native_batch_is_said_of_all(native):
    """C3: nobody knows how far it came."""

    def many(items: Any) -> list[Any]:
        raise ConnectionError("reset")

    for answers in many_both_ways(native(many, maybe=True, breaker=False), named("a", "b")):
        assert statuses(answers) == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("given", [[], [Sent("1")], [Sent("1")] * 3, None, 5])
def test_the_wrong_number_of_results_is_unknown(native, given):
    """C3: which result is whose cannot be told; `_maybe_sent` is not asked."""
    made = native(lambda items: given, maybe=False, breaker=False)

    for answers in many_both_ways(made, named("a", "b")):
        assert statuses(answers) == [UNKNOWN, UNKNOWN]
        assert {each.error.category for each in answers} == {ErrorCategory.INTERNAL}


def test_the_hooks_see_every_item(adapter):
    """Before and after, as with single dispatches."""
    before: list[str] = []
    after: list[DispatchStatus] = []
    hooks.before_dispatch(lambda request: before.append(request.task))
    hooks.after_dispatch(lambda response: after.append(response.status))

    adapter(by_task).dispatch_many(named("a", "down"))

    assert (before, after) == (["a", "down"], [ACCEPTED, UNKNOWN])


def test_every_item_is_checked_against_the_capabilities(adapter):
    """C6: too large and unsupported ones stay behind, waived options are listed."""
    made = adapter(capabilities=Capabilities(max_size=400), waive=["priority"])
    requests = [
        DispatchRequest(task="large", payload={"text": "x" * 400}),
        DispatchRequest(task="urgent", priority=5),
        DispatchRequest(task="late", delay=timedelta(1)),
    ]

    for answers in many_both_ways(made, requests):
        assert [each.error and each.error.category for each in answers] == [
            ErrorCategory.TOO_LARGE,
            None,
            ErrorCategory.UNSUPPORTED,
        ]
        assert answers[1].waived == ("priority",)


# Batches of one task


def test_a_task_batch_dispatches_in_one_call(native, send_welcome):
    """`add` collects, `dispatch` hands over; each answer knows its request."""
    made = native(lambda items: [Sent(request.id) for request, _ in items])

    with override(default=made):
        batch = send_welcome.batch()
        batch.add(user_id=1)
        batch.add(2, locale="de")
        answers = batch.dispatch()

    assert answers.ok
    assert [each.request.payload for each in answers] == [
        {"user_id": 1},
        {"user_id": 2, "locale": "de"},
    ]
    assert made.batches == [["shop.send_welcome"] * 2]


def test_a_task_batch_keeps_the_options(adapter, send_welcome):
    """Of `task.options(...)`, for every item."""
    made = adapter(capabilities=Capabilities(priority=True))

    batch = send_welcome.options(dispatcher=made, priority=7, queue="mail").batch()
    batch.add(1)
    (answer,) = batch.dispatch()

    assert (answer.request.priority, answer.request.queue) == (7, "mail")


def test_arguments_that_do_not_fit_are_answers_in_their_place(adapter, send_welcome):
    """C1: `add` raises nothing."""

    def filled():
        batch = send_welcome.batch()
        batch.add(user_id=1)
        batch.add(user_id="no number")
        batch.add(wrong=5)
        batch.add(user_id=4)
        return batch

    with override(default=adapter()):
        sync = filled().dispatch()
        async_ = asyncio.run(filled().adispatch())

    for answers in (sync, async_):
        assert statuses(answers) == [ACCEPTED, REJECTED, REJECTED, ACCEPTED]
        assert [each.error.category for each in answers.failed] == [ErrorCategory.INVALID] * 2


def test_an_empty_task_batch_is_ok(send_welcome, adapter):
    """It contacts nobody, wherever it would go."""
    with override(default=adapter(ConnectionError())):
        assert send_welcome.batch().dispatch().ok
        assert asyncio.run(send_welcome.batch().adispatch()).ok


def test_a_misconfigured_dispatcher_answers_for_every_item(send_welcome):
    """C1: a batch raises no more than a dispatch."""
    with override({"targets": {"x": {"default": "inline"}, "y": {}}, "target": "x"}):
        batch = send_welcome.options(dispatcher=5).batch()
        batch.add(1)
        batch.add(2)
        answers = batch.dispatch()

    assert statuses(answers) == [REJECTED, REJECTED]


def test_a_configuration_that_changes_between_add_and_dispatch_is_followed(adapter, send_welcome):
    """A batch goes where its task goes when it is dispatched."""
    first, second = adapter(), adapter()
    with override(default=first):
        batch = send_welcome.batch()
        batch.add(1)

    with override(default=second):
        answers = batch.dispatch()

    assert answers.ok
    assert (len(first.asked), len(second.asked)) == (0, 1)


def test_a_batch_of_a_task_runs_inline(inline):
    """Every item runs, one after the other, each in a run of its own."""
    seen: list[int] = []

    @task(name="shop.count")
    def count(number: int) -> None:
        seen.append(number)
        if number == 2:
            raise ValueError("two")

    batch = count.batch()
    for number in (1, 2, 3):
        batch.add(number)
    answers = batch.dispatch()

    assert seen == [1, 2, 3]
    assert [each.status.value for each in answers] == ["executed", "failed", "executed"]


# Batches that are used again, large ones, and their log


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_dispatch_empties_the_batch(native, send_welcome, asynchronous):
    """A batch that is filled in chunks hands each addition over once, whatever became of it."""
    made = native(lambda items: [Sent(request.id) for request, _ in items])
    batch = send_welcome.options(dispatcher=made).batch()
    answers = []

    for first in (1, 3, 5):
        batch.add(user_id=first)
        batch.add(user_id="no number")
        batch.add(user_id=first + 1)
        answers += asyncio.run(batch.adispatch()) if asynchronous else batch.dispatch()
        assert len(batch) == 0

    assert sum(map(len, made.batches)) == 6
    assert [each.ok for each in answers] == [True, False, True] * 3


def test_what_threads_add_and_dispatch_is_handed_over_once(native, send_welcome):
    """C8: nothing that is added while another thread dispatches is lost or doubled."""
    handed_over: list[int] = []

    def many(items: Any) -> list[Sent]:
        handed_over.extend(request.payload["user_id"] for request, _ in items)
        return [Sent(request.id) for request, _ in items]

    made = native(many)
    batch = send_welcome.options(dispatcher=made).batch()

    def add_then_dispatch(first: int) -> None:
        for number in range(first, first + 200):
            batch.add(user_id=number)
            if number % 3 == 0:
                batch.dispatch()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_then_dispatch, range(0, 1600, 200)))
    batch.dispatch()

    assert sorted(handed_over) == list(range(1600))


def test_failed_is_true_where_something_failed():
    """`if responses.failed:` reads as it does for a list."""
    one = DispatchRequest(task="t")
    good = native_answers(Sent(one.id))
    bad = native_answers(RejectedError(ErrorCategory.NOT_FOUND, "no queue"))

    assert not good.failed
    assert not good.failed[:1]
    assert bad.failed
    assert bad.failed[:1]
    assert not bad.failed[1:]
    assert (bool(good), bool(bad), len(bad.failed)) == (True, False, 1)
    assert bad.failed == bad


def native_answers(result: Sent | Exception) -> DispatchResponses:
    class Fixed(BaseDispatcher):
        name = "fixed"
        contract = 1
        capabilities = Capabilities()

        def _send(self, request, body, *, timeout):
            if isinstance(result, Exception):
                raise result
            return result

        def _category(self, exc):
            return None

        def _maybe_sent(self, exc):
            return True

    return Fixed().dispatch_many([DispatchRequest(task="t")])


def test_the_time_that_encoding_takes_is_not_counted(native, monkeypatch):
    """C2: the deadline is for the backend; a batch of any size is handed over, chunk by chunk."""
    made = native(lambda items: [Sent(request.id) for request, _ in items], deadline=20.0)
    encoding = 0.0
    for module in (base, batch):
        monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + encoding)

    def slowly() -> Iterator[DispatchRequest]:
        nonlocal encoding
        for number in range(2500):
            if number % 500 == 0:
                encoding += 10.0
            yield DispatchRequest(task=str(number))

    answers = made.dispatch_many(slowly())

    assert answers.ok
    assert len(answers) == 2500
    assert [len(batch) for batch in made.batches] == [1000, 1000, 500]
    assert [each.request.task for each in answers] == list(map(str, range(2500)))


def test_a_large_batch_ends_with_its_deadline(native, uncollected):
    """C2, C3: what was not sent by then is rejected and can be repeated, the rest is answered."""

    def slow(items: Any) -> list[Sent]:
        time.sleep(0.15)
        return [Sent(request.id) for request, _ in items]

    made = native(slow, deadline=0.2)
    requests = named(*["a"] * 12_000)

    started = time.thread_time()
    answers = made.dispatch_many(requests)
    took = time.thread_time() - started

    assert took < OVER  # of this thread alone, beside what it waited
    sent = sum(map(len, made.batches))
    assert sent in (1000, 2000)
    assert statuses(answers) == [ACCEPTED] * sent + [REJECTED] * (12_000 - sent)
    assert {each.error.category for each in answers.failed} == {ErrorCategory.TIMEOUT}
    assert all(each.error.retryable for each in answers.failed)


def test_what_comes_after_a_chunk_that_failed_is_not_tried(native):
    """C3: the chunk in flight may have arrived, the rest certainly did not."""

    def many(items: Any) -> list[Any]:
        raise ConnectionError("reset")

    made = native(many, maybe=True)

    answers = made.dispatch_many(named(*["a"] * 2500))

    assert statuses(answers) == [UNKNOWN] * 1000 + [REJECTED] * 1500
    assert len(made.batches) == 1


def test_one_cause_is_one_record(adapter, caplog):
    """C4: a batch that fails for one reason writes one record, with the number of requests."""
    made = adapter(RejectedError(ErrorCategory.NOT_FOUND, "no queue"), breaker=False)

    made.dispatch_many(named(*["a"] * 300, *["b"] * 2))

    records = [each.getMessage() for each in caplog.records if each.name == "dispatchers"]
    assert len(records) == 2
    assert "dispatch of a " in records[0]
    assert "(and 299 more of the batch)" in records[0]
    assert "(and 1 more of the batch)" in records[1]


def test_many_causes_are_some_records(adapter, caplog):
    """C4: a batch never writes more than a screen."""
    made = adapter(RejectedError(ErrorCategory.NOT_FOUND, "no queue"), breaker=False)

    made.dispatch_many(named(*map("t{}".format, range(300))))

    records = [each.getMessage() for each in caplog.records if each.name == "dispatchers"]
    assert len(records) == 21
    assert records[-1] == "280 more dispatches of the batch failed for other causes"


def test_a_batch_that_ran_out_of_time_opens_no_breaker(native):
    """C4: the backend took what it was given; items that had no turn say nothing of it."""
    late = RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before its turn")
    made = native(
        lambda items: [Sent(items[0][0].id), *[late] * (len(items) - 1)],
        breaker={"failures": 1, "reset": 60.0},
    )

    made.dispatch_many(named(*"abc"))

    assert made.dispatch_many(named("a")).ok


@pytest.mark.parametrize("many", [False, True])
def test_a_deadline_of_its_own_opens_no_breaker_for_others(adapter, many):
    """C4: a request in more of a hurry than the dispatcher says little of the backend."""
    made = adapter(TimeoutError("slow"), deadline=5.0, breaker={"failures": 1, "reset": 60.0})
    hurried = DispatchRequest(task="t", deadline=0.01)

    answers = made.dispatch_many([hurried] * 3) if many else [made.dispatch(hurried)]

    assert {each.error.category for each in answers} == {ErrorCategory.TIMEOUT}
    patient = made.dispatch(DispatchRequest(task="t"))
    assert patient.error.category is ErrorCategory.TIMEOUT
    assert made.dispatch(hurried).error.category is ErrorCategory.CIRCUIT_OPEN
