"""The outbox where Django begins the transactions: tests, requests, several databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from dispatchers_django import DispatchInTransactionWarning, OnCommit, dispatched
from dispatchers_django.models import OutboxRow
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse
from django.test import Client, TestCase, override_settings
from django.urls import path

from dispatchers import DispatchStatus, get_dispatcher, override, task
from dispatchers.testing import RecordingDispatcher
from dispatchers.testing.processes import wait_until

from .test_surroundings import atomic_requests

DEFERRED = DispatchStatus.DEFERRED


class RollbackError(Exception):
    """Ends a transaction."""


def outbox(store: str = "django:default", to: str = "broker") -> dict[str, str]:
    return {"backend": "outbox", "to": to, "store": store}


@pytest.fixture
def broker(use: Any) -> RecordingDispatcher:
    broker = RecordingDispatcher(alias="broker")
    use(default=outbox(), broker=broker)
    return broker


def handed(broker: RecordingDispatcher, *expected: int) -> bool:
    wait_until(lambda: len(broker.requests) >= len(expected), "too little arrived")
    return [each.payload["number"] for each in broker.requests] == list(expected)


# Tests of Django's.


class TestInDjangoS(TestCase):
    """In Django's own tests, which run inside a transaction."""

    databases = "__all__"

    def setUp(self) -> None:
        """The outbox before a broker that records."""

        @task(name="shop.captured")
        def captured(number: int) -> None: ...

        self.captured = captured
        self.broker = RecordingDispatcher(alias="broker")
        block = override(default=outbox(), broker=self.broker)
        block.__enter__()
        self.addCleanup(block.__exit__, None, None, None)

    def numbers(self) -> list[int]:
        return [each.payload["number"] for each in self.broker.requests]

    def test_nothing_leaves_a_test_by_itself(self) -> None:
        """The row is there to look at, in the test's transaction."""
        response = self.captured.dispatch(1)
        with transaction.atomic():
            self.captured.dispatch(2)

        assert (response.status, response.durable) == (DEFERRED, False)
        assert list(OutboxRow.objects.values_list("task", flat=True)) == ["shop.captured"] * 2
        assert self.numbers() == []

    def test_callbacks_are_captured(self) -> None:
        """Executing them hands over, in the call, by the connection that sees the rows."""
        with self.captureOnCommitCallbacks() as callbacks:
            self.captured.dispatch(1)
        before = self.numbers()
        with self.captureOnCommitCallbacks(execute=True):
            self.captured.dispatch(2)

        assert len(callbacks) == 1
        assert before == []
        assert self.numbers() == [1, 2]
        assert OutboxRow.objects.count() == 0

    def test_a_rolled_back_block_leaves_nothing(self) -> None:
        """As outside of tests."""
        with self.captureOnCommitCallbacks(execute=True):
            with pytest.raises(RollbackError), transaction.atomic():
                self.captured.dispatch(1)
                raise RollbackError

        assert (self.numbers(), OutboxRow.objects.count()) == ([], 0)

    def test_a_broker_that_is_down_leaves_the_row(self) -> None:
        """In the call, which waits for nothing."""
        with self.broker.down(), self.captureOnCommitCallbacks(execute=True):
            self.captured.dispatch(1)

        assert OutboxRow.objects.get().tries == 1

    def test_final_responses_are_told_in_the_call(self) -> None:
        """To `on_result` and to the signal, once each."""
        told: list[Any] = []
        heard: list[Any] = []

        def receiver(response: Any, **_: Any) -> None:
            heard.append(response)

        dispatched.connect(receiver)
        self.addCleanup(dispatched.disconnect, receiver)
        with self.captureOnCommitCallbacks(execute=True):
            later = self.captured.options(dispatcher=OnCommit(on_result=told.append))
            response = later.dispatch(1)

        assert response.status is DEFERRED
        assert [each.status.value for each in told] == ["accepted"]
        assert heard == told


def test_in_django_s_test_environment_no_thread_hands_over(send, broker, monkeypatch):
    """A test whose transactions are real: it is done when the commit is."""
    monkeypatch.setattr("dispatchers_django.outbox.in_tests", lambda: True)
    with transaction.atomic():
        send.dispatch(1)

    assert [each.payload["number"] for each in broker.requests] == [1]
    assert OutboxRow.objects.count() == 0
    assert not any(each.name.startswith("dispatchers-forward") for each in threading.enumerate())


def test_a_task_that_dispatches_is_handed_over_as_well(use, send, monkeypatch):
    """What is run in the call writes rows itself."""
    monkeypatch.setattr("dispatchers_django.outbox.in_tests", lambda: True)
    use(default=outbox(), broker="inline")

    @task(name="shop.chain")
    def chain() -> None:
        with transaction.atomic():
            send.dispatch(7)

    chain.dispatch()

    assert OutboxRow.objects.count() == 0


# Requests.


@pytest.fixture
def view(send: Any) -> Iterator[str]:
    """A view that writes and dispatches; `fails` has it raise."""

    def order(request: Any) -> HttpResponse:
        User.objects.create(username="ada")
        response = send.dispatch(1)
        if "fails" in request.GET:
            raise RollbackError
        return HttpResponse(f"{response.status.value} {response.durable}")

    urls = type("urls", (), {"urlpatterns": [path("order", order)]})
    with override_settings(ROOT_URLCONF=urls), atomic_requests("default"):
        yield "/order"


def test_a_request_s_transaction_has_the_row(view, broker):
    """`ATOMIC_REQUESTS`."""
    answer = Client().get(view)

    assert answer.content == b"deferred False"
    assert handed(broker, 1)


def test_a_request_that_fails_leaves_nothing(view, send, broker):
    """Neither what it wrote, nor the work."""
    answer = Client(raise_request_exception=False).get(view, {"fails": "1"})
    send.dispatch(2)

    assert answer.status_code == 500
    assert handed(broker, 2)
    assert User.objects.count() == 0


# Several databases.


def test_each_database_has_its_outbox(send, use):
    """Two outboxes in two databases, before two brokers: each is flushed by its own commit."""
    first, second = RecordingDispatcher(alias="first"), RecordingDispatcher(alias="second")
    use(
        default=outbox("django:default", "first"),
        mail=outbox("django:other", "second"),
        first=first,
        second=second,
    )

    with transaction.atomic(), transaction.atomic(using="other"):
        send.dispatch(1)
        send.options(dispatcher="mail").dispatch(2)
        placed = [OutboxRow.objects.using(each).count() for each in ("default", "other")]

    assert placed == [1, 1]
    assert handed(first, 1)
    assert handed(second, 2)


def test_two_outboxes_share_a_database(send, use):
    """Rows know whose they are: two brokers behind one table, both flushed."""
    first, second = RecordingDispatcher(alias="first"), RecordingDispatcher(alias="second")
    use(
        default=outbox("django:default", "first"),
        mail=outbox("django:default", "second"),
        first=first,
        second=second,
    )

    with transaction.atomic():
        send.dispatch(1)
        send.options(dispatcher="mail").dispatch(2)

    assert handed(first, 1)
    assert handed(second, 2)


def test_another_database_s_rollback_alone_takes_no_row(send, use):
    """The row is in the transaction of its own database; the warning says that another is open."""
    broker = RecordingDispatcher(alias="broker")
    use(default=outbox("django:other"), broker=broker)

    with pytest.warns(DispatchInTransactionWarning, match="'default'"):
        with pytest.raises(RollbackError), transaction.atomic():
            response = send.dispatch(1)
            raise RollbackError

    assert response.durable
    assert handed(broker, 1)


def test_on_commit_of_another_database_waits_for_it(send, use):
    """`OnCommit` over an outbox elsewhere: the row is written after the commit it waits for."""
    broker = RecordingDispatcher(alias="broker")
    use(default=outbox("django:other"), broker=broker)

    with transaction.atomic():
        send.options(dispatcher=OnCommit()).dispatch(1)
        before = OutboxRow.objects.using("other").count()

    assert before == 0
    assert handed(broker, 1)


def test_the_relay_s_endpoint_hands_over(send, use, monkeypatch):
    """`POST /dispatchers/relay`, also where requests are in transactions."""
    from dispatchers_django import views

    from dispatchers.http import EndpointSettings

    broker = RecordingDispatcher(alias="broker")
    use(default=outbox(), broker=broker)
    monkeypatch.setattr(get_dispatcher().forwarder, "notice", lambda: None)
    send.dispatch(1)
    settings = EndpointSettings(worker=True, secrets=("s" * 32,))
    views._served[:] = [views._Endpoint(settings)]
    try:
        with atomic_requests("default"):
            answer = Client(enforce_csrf_checks=True).post(
                "/dispatchers/relay",
                b"",
                content_type="application/json",
                headers={"authorization": f"Bearer {'s' * 32}"},
            )
    finally:
        views._served.clear()

    assert answer.status_code == 200
    assert handed(broker, 1)
    assert OutboxRow.objects.count() == 0
