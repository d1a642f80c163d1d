"""C7: after-commit exists only as an explicit dispatcher."""

from __future__ import annotations

import asyncio
import threading
import warnings
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from dispatchers_django import OnCommit, dispatched
from django.db import connections, transaction
from django.test import TestCase

from dispatchers import DispatchStatus, ErrorCategory, hooks, override, task
from dispatchers.testing import RecordingDispatcher
from dispatchers.testing.conformance._tools import label

DEFERRED, EXECUTED = DispatchStatus.DEFERRED, DispatchStatus.EXECUTED


class RollbackError(Exception):
    """Ends a transaction."""


def test_work_goes_out_after_the_commit(send, ran):
    """`DEFERRED` before, and the final response to the callback afterwards."""
    told: list[Any] = []
    on_commit = OnCommit(on_result=told.append)

    with transaction.atomic():
        response = send.options(dispatcher=on_commit).dispatch(1)
        before = (list(ran), list(told))

    assert (response.status, response.durable, response.ok) == (DEFERRED, False, True)
    assert before == ([], [])
    assert ran == [1]
    assert [each.status for each in told] == [EXECUTED]
    assert told[0].request_id == response.request_id


def test_work_never_goes_out_after_a_rollback(send, ran):
    """Nor is anything told of it."""
    told: list[Any] = []

    with pytest.raises(RollbackError), transaction.atomic():
        send.options(dispatcher=OnCommit(on_result=told.append)).dispatch(1)
        raise RollbackError

    assert (ran, told) == ([], [])


def test_work_of_a_savepoint_goes_with_it(send, ran):
    """What was dispatched outside of it stays."""
    later = send.options(dispatcher=OnCommit())

    with transaction.atomic():
        later.dispatch(1)
        with pytest.raises(RollbackError), transaction.atomic():
            later.dispatch(2)
            raise RollbackError
        with transaction.atomic():
            later.dispatch(3)

    assert ran == [1, 3]


def test_a_transaction_that_is_marked_for_rollback_takes_the_work_along(send, ran):
    """An error that was swallowed too deep does."""
    with transaction.atomic():
        send.options(dispatcher=OnCommit()).dispatch(1)
        transaction.set_rollback(True)

    assert ran == []


def test_arguments_that_do_not_fit_are_refused_at_once(send, ran):
    """While somebody looks."""
    with transaction.atomic():
        wrong = send.options(dispatcher=OnCommit()).dispatch("seven")
        missing = send.options(dispatcher=OnCommit()).dispatch()

    assert {wrong.status, missing.status} == {DispatchStatus.REJECTED}
    assert wrong.error.category is missing.error.category is ErrorCategory.INVALID
    assert ran == []


def test_what_the_dispatcher_cannot_do_is_refused_at_once(send, use):
    """C6: against the dispatcher that gets the work."""
    from datetime import timedelta

    use(default="inline")
    later = send.options(dispatcher=OnCommit(), delay=timedelta(hours=1))

    with transaction.atomic():
        response = later.dispatch(1)

    assert response.error.category is ErrorCategory.UNSUPPORTED


def test_arguments_are_encoded_at_once(use):
    """C5: what happens to them until the commit does not matter."""
    ran: list[list[int]] = []

    @task(name="shop.sum")
    def add(numbers: list[int]) -> None:
        ran.append(numbers)

    numbers = [1, 2]
    with transaction.atomic():
        add.options(dispatcher=OnCommit()).dispatch(numbers)
        numbers.append(3)

    assert ran == [[1, 2]]


def test_a_failure_never_leaves_the_commit(send, use):
    """Of the dispatcher, the callback or a receiver of the signal."""
    told: list[Any] = []

    def on_result(response: Any) -> None:
        told.append(response)
        raise RuntimeError("of the callback")

    def receiver(**_: Any) -> None:
        raise RuntimeError("of the receiver")

    recording = RecordingDispatcher()
    recording.fail_next(category="unavailable")
    use(default=recording)
    dispatched.connect(receiver)
    try:
        with transaction.atomic():
            response = send.options(dispatcher=OnCommit(on_result=on_result)).dispatch(1)
    finally:
        dispatched.disconnect(receiver)

    assert response.status is DEFERRED
    assert [each.status for each in told] == [DispatchStatus.REJECTED]


def test_the_signal_has_the_final_response(send):
    """Sent by `OnCommit`, with the database's alias."""
    heard: list[Any] = []

    def receiver(sender: Any, response: Any, using: str, **_: Any) -> None:
        heard.append((sender, response.status, using))

    dispatched.connect(receiver)
    try:
        with transaction.atomic(using="other"):
            send.options(dispatcher=OnCommit("other")).dispatch(1)
    finally:
        dispatched.disconnect(receiver)

    assert heard == [(OnCommit, EXECUTED, "other")]


def test_each_database_has_its_own_commit(send, ran):
    """That of another one does not send."""
    with transaction.atomic():
        with transaction.atomic(using="other"):
            send.options(dispatcher=OnCommit(using="other")).dispatch(1)
            send.options(dispatcher=OnCommit()).dispatch(2)
            nothing = list(ran)
        of_other = list(ran)

    assert (nothing, of_other, ran) == ([], [1], [1, 2])


def test_outside_a_transaction_there_is_nothing_to_wait_for(send, ran):
    """The answer is the final one; C3: nothing is said to be deferred that is not."""
    told: list[Any] = []

    response = send.options(dispatcher=OnCommit(on_result=told.append)).dispatch(1)

    assert (response.status, ran) == (EXECUTED, [1])
    assert told == [response]


def test_outside_a_transaction_the_database_is_not_asked(send, ran):
    """One that is down costs nothing."""
    connections["default"].close()

    send.options(dispatcher=OnCommit()).dispatch(1)

    assert ran == [1]
    assert connections["default"].connection is None


def test_manual_transaction_management_is_refused(send):
    """There is no commit to hear of."""
    transaction.set_autocommit(False)
    try:
        response = send.options(dispatcher=OnCommit()).dispatch(1)
    finally:
        transaction.set_autocommit(True)

    assert response.error.category is ErrorCategory.UNSUPPORTED
    assert "transaction.atomic()" in response.error.message


@pytest.mark.parametrize("given", [None, 7, "text", object()], ids=label)
@pytest.mark.parametrize("way", ["sync", "async"])
def test_what_are_no_requests_is_an_answer(way, given):
    """C1: of `dispatch_many` called directly; as other dispatchers answer it."""
    if way == "sync":
        (response,) = OnCommit().dispatch_many(given)
    else:
        (response,) = asyncio.run(OnCommit().adispatch_many(given))

    assert response.status is DispatchStatus.REJECTED
    assert response.error.category is ErrorCategory.INVALID
    assert "pass a list" in response.error.message


def test_one_request_is_no_list_of_them(send):
    """C1: nor are what is in it, which is no request."""
    (response,) = OnCommit().dispatch_many(send.request(1))

    assert response.error.category is ErrorCategory.INVALID


def test_requests_that_raise_half_way_are_an_answer(send, ran):
    """C1: what came before goes out with the commit."""

    def requests() -> Any:
        yield send.request(1)
        raise RuntimeError("no more")

    with transaction.atomic():
        responses = OnCommit().dispatch_many(requests())

    assert [each.status for each in responses] == [DEFERRED, DispatchStatus.REJECTED]
    assert ran == [1]


def test_what_is_no_request_is_an_answer_in_its_place(send, ran):
    """C1: whatever it does when it is looked at."""

    class Odd:
        @property
        def task(self) -> str:
            raise RuntimeError("of the property")

        def __str__(self) -> str:
            raise RuntimeError("of the text")

    with transaction.atomic():
        single = OnCommit().dispatch(Odd())
        responses = OnCommit().dispatch_many([Odd(), send.request(1), None])

    assert single.error.category is ErrorCategory.INVALID
    assert [each.ok for each in responses] == [False, True, False]
    assert ran == [1]


def test_an_unknown_database_is_an_answer(send):
    """C1."""
    response = send.options(dispatcher=OnCommit(using="nowhere")).dispatch(1)

    assert response.status is DispatchStatus.REJECTED


def test_an_unknown_dispatcher_is_an_answer(send):
    """C1: with what is configured."""
    response = send.options(dispatcher=OnCommit(to="nowhere")).dispatch(1)

    assert response.status is DispatchStatus.REJECTED
    assert response.error.category is ErrorCategory.CONFIGURATION


def test_a_task_s_own_dispatcher_gets_the_work(use):
    """Unless another one is named."""

    @task(name="acme.audit", dispatcher="acme")
    def audit() -> None: ...

    own, named = RecordingDispatcher(), RecordingDispatcher()
    use(default="null", acme=own, other=named)

    with transaction.atomic():
        audit.options(dispatcher=OnCommit()).dispatch()
        audit.options(dispatcher=OnCommit(to="other")).dispatch()

    assert (len(own.requests), len(named.requests)) == (1, 1)


def test_the_dispatcher_is_looked_up_at_each_dispatch(send, ran):
    """So that one object serves a module, whatever a test overrides."""
    on_commit = OnCommit()
    recording = RecordingDispatcher()

    send.options(dispatcher=on_commit).dispatch(1)
    with override(default=recording):
        send.options(dispatcher=on_commit).dispatch(2)

    assert (ran, len(recording.requests)) == ([1], 1)


def test_a_batch_goes_out_in_one_round_trip(send, use):
    """The responses are in order, those refused among them."""
    use(default=(recording := RecordingDispatcher()))
    told: list[Any] = []
    batch = send.options(dispatcher=OnCommit(on_result=told.append)).batch()
    for each in (1, "two", 3):
        batch.add(each)

    with transaction.atomic():
        responses = batch.dispatch()
        before = len(recording.requests)

    assert [each.status.value for each in responses] == ["deferred", "rejected", "deferred"]
    assert before == 0
    assert [each.payload["number"] for each in recording.requests] == [1, 3]
    assert [each.status.value for each in told] == ["accepted", "accepted"]


def test_requests_of_several_tasks_go_to_their_own_dispatchers(send, use):
    """In the order they were given."""

    @task(name="acme.audit", dispatcher="acme")
    def audit() -> None: ...

    use(default="null", acme="inline")
    on_commit = OnCommit()

    responses = on_commit.dispatch_many([send.request(1), audit.request(), send.request(2)])

    assert [each.status.value for each in responses] == ["accepted", "executed", "accepted"]


def test_hooks_change_a_request_once(send, use):
    """When it is held."""
    seen: list[str] = []

    @hooks.before_dispatch
    def look(request: Any) -> None:
        seen.append(request.id)

    with transaction.atomic():
        response = send.options(dispatcher=OnCommit()).dispatch(1)

    assert seen == [response.request_id]


def test_async_code_waits_for_the_transaction_of_its_queries(send, ran):
    """C8: `adispatch` looks where `sync_to_async` runs the queries."""

    async def main() -> tuple[Any, list[int]]:
        block = transaction.atomic()
        await sync_to_async(block.__enter__)()
        response = await send.options(dispatcher=OnCommit()).adispatch(1)
        before = list(ran)
        await sync_to_async(block.__exit__)(None, None, None)
        await sync_to_async(connections.close_all)()
        return response, before

    response, before = asyncio.run(main())

    assert (response.status, before, ran) == (DEFERRED, [], [1])


def test_threads_have_transactions_of_their_own(send, ran):
    """C8: another thread's does not hold back the work of this one."""
    with transaction.atomic():
        thread = threading.Thread(target=send.options(dispatcher=OnCommit()).dispatch, args=(1,))
        thread.start()
        thread.join()

        assert ran == [1]


class TestInDjangoS(TestCase):
    """In Django's own tests, which run inside a transaction."""

    databases = "__all__"

    def test_callbacks_are_captured(self) -> None:
        """`captureOnCommitCallbacks` sends them, or does not."""
        recording = RecordingDispatcher()

        @task(name="shop.captured")
        def captured() -> None: ...

        with override(default=recording):
            with self.captureOnCommitCallbacks() as callbacks:
                response = captured.options(dispatcher=OnCommit()).dispatch()
            nothing = len(recording.requests)
            with self.captureOnCommitCallbacks(execute=True):
                captured.options(dispatcher=OnCommit()).dispatch()

        assert response.status is DEFERRED
        assert (len(callbacks), nothing, len(recording.requests)) == (1, 0, 1)

    def test_nothing_is_warned_of(self) -> None:
        """The test's own transaction is none of the application's."""

        @task(name="shop.plain")
        def plain() -> None: ...

        with override(default="null"), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert plain.dispatch().ok


@pytest.mark.parametrize("outer", ["default", "other"])
def test_every_open_transaction_counts(send, ran, outer):
    """C7: without `using` the work goes out after the last commit, of whatever database."""
    inner = {"default": "other", "other": "default"}[outer]
    with transaction.atomic(using=outer):
        with transaction.atomic(using=inner):
            response = send.options(dispatcher=OnCommit()).dispatch(1)
        after_inner = list(ran)

    assert response.status is DEFERRED
    assert (after_inner, ran) == ([], [1])


@pytest.mark.parametrize("outer", ["default", "other"])
def test_a_rollback_of_any_open_transaction_drops_the_work(send, ran, outer):
    """C7: it is not handed over, whichever of them is rolled back."""
    inner = {"default": "other", "other": "default"}[outer]
    with pytest.raises(RollbackError), transaction.atomic(using=outer):
        with transaction.atomic(using=inner):
            send.options(dispatcher=OnCommit()).dispatch(1)
        raise RollbackError
    with transaction.atomic(using=outer), pytest.raises(RollbackError):
        with transaction.atomic(using=inner):
            send.options(dispatcher=OnCommit()).dispatch(2)
            raise RollbackError

    assert ran == []


def test_a_transaction_of_another_database_alone_counts(send, ran):
    """C7: `OnCommit()` inside `atomic(using="other")`, which is rolled back."""
    with pytest.raises(RollbackError), transaction.atomic(using="other"):
        response = send.options(dispatcher=OnCommit()).dispatch(1)
        raise RollbackError

    assert (response.status, ran) == (DEFERRED, [])


def test_a_database_that_is_named_leaves_the_others_to_a_warning(send, ran):
    """C7: `using` says whose commit counts; an open transaction of another one is told."""
    from dispatchers_django import DispatchInTransactionWarning

    with pytest.warns(DispatchInTransactionWarning, match="'other'"):
        with transaction.atomic(using="other"):
            send.options(dispatcher=OnCommit(using="default")).dispatch(1)

    assert ran == [1]


@pytest.mark.parametrize("many", [False, True])
def test_a_database_that_is_not_there_is_a_matter_of_configuration(send, many):
    """C4: the message names it and those that there are."""
    later = OnCommit(using="nope")
    request = send.request(1)

    response = later.dispatch_many([request])[0] if many else later.dispatch(request)

    assert response.status is DispatchStatus.REJECTED
    assert response.error.category is ErrorCategory.CONFIGURATION
    assert "'nope'" in response.error.message
    assert "'default', 'other'" in response.error.message


def test_a_callback_that_cannot_be_called_is_refused_at_once():
    """Where it is written, not in the commit."""
    with pytest.raises(TypeError, match="on_result"):
        OnCommit(on_result="log")  # type: ignore[arg-type]
