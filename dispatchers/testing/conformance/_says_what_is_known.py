"""C3: the status says what is known, and nothing else."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest

from dispatchers import DispatchResponse, DispatchStatus, ErrorCategory
from dispatchers.testing import tasks
from dispatchers.testing._proxy import FaultProxy
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_hangs import proxied
from ._never_raises import every_way
from ._tools import PATIENCE, arrived, opened, refused_with, send

__all__ = ["SaysWhatIsKnown"]

OK = {
    DispatchStatus.EXECUTED,
    DispatchStatus.ACCEPTED,
    DispatchStatus.DUPLICATE,
    DispatchStatus.DEFERRED,
}
CUTS = (0, 1, 16, 64, 128)
"""Bytes of a request that pass before the connection is cut: none, a part, perhaps all."""

BATCH_CUTS = (3000, 12_000, 30_000)
"""The same of a batch whose second and eighth item have 20,000 bytes."""


class SaysWhatIsKnown:
    """C3, from outside."""

    def test_accepted_work_is_there(self, harness: Harness, journal: Journal) -> None:
        """C3: work that was ACCEPTED, in whatever way, is there when the call returns."""
        if not harness.has("received"):
            harness.need("worker")
        dispatcher = harness.dispatcher()
        ways = [every_way(harness, dispatcher, tasks.note.request(journal.path)) for _ in range(2)]

        answers = [answer for way in ways for answer in way.values()]

        assert all(answers)
        ids = {each.request_id for each in answers}
        assert ids <= set(arrived(harness, dispatcher, journal, *ids))

    def test_rejected_work_is_not_there(self, harness: Harness, journal: Journal) -> None:
        """C3: REJECTED means certainly not handed over: nothing of it arrives later."""
        if not harness.has("received"):
            harness.need("worker")
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path)

        with harness.broken(dispatcher, ConnectionRefusedError(111, "no server there")):
            answers = every_way(harness, dispatcher, request)

        assert {each.status for each in answers.values()} <= {
            DispatchStatus.REJECTED,
            DispatchStatus.UNKNOWN,
        }
        if any(each.status is DispatchStatus.REJECTED for each in answers.values()):
            # UNKNOWN allows both; only REJECTED is a promise.
            assert request.id not in arrived(harness, dispatcher, journal)

    def test_a_refused_connection_is_rejected(self, harness: Harness, journal: Journal) -> None:
        """C3: without a server nothing was handed over: REJECTED, `unavailable`, retryable."""
        with proxied(harness, deadline=harness.deadline) as (proxy, dispatcher):
            proxy.refuse()

            response = send(dispatcher, journal)

        refused_with(response, ErrorCategory.UNAVAILABLE)
        assert response.error is not None
        assert response.error.retryable

    def test_a_lost_reply_is_unknown(self, harness: Harness, journal: Journal) -> None:
        """C3: the request arrived and its confirmation was lost: UNKNOWN, nothing else."""
        with proxied(harness, deadline=1.0) as (proxy, dispatcher):
            opened(dispatcher, journal)
            proxy.drop_reply()

            response = send(dispatcher, journal)

        _is_true(harness, journal, response)
        assert not response.ok

    @pytest.mark.parametrize("after", CUTS)
    def test_a_cut_request_is_judged_truly(
        self, harness: Harness, journal: Journal, after: int
    ) -> None:
        """C3: wherever the connection breaks, REJECTED work is not there and ACCEPTED work is."""
        with proxied(harness, deadline=1.0) as (proxy, dispatcher):
            proxy.cut(after=after, direction="request")

            response = send(dispatcher, journal)
            # Else the bytes that passed might arrive after the look at the server.
            _wait_for_the_cut(proxy)

        _is_true(harness, journal, response)

    @pytest.mark.parametrize("after", BATCH_CUTS)
    def test_a_cut_batch_in_order_leaves_its_beginning(
        self, harness: Harness, journal: Journal, after: int
    ) -> None:
        """C3, C9: wherever a batch in order breaks off, nothing is there without all before it."""
        with proxied(harness, deadline=1.0) as (proxy, dispatcher):
            if not dispatcher.stops_at_failure:
                pytest.skip(f"{dispatcher.name} hands over one after the other")
            proxy.cut(after=after, direction="request")

            texts = ["", "long" * 5000, *[""] * 5] * 2
            requests = [tasks.note.request(journal.path, text) for text in texts]
            answers = dispatcher._dispatch_in_order(requests)
            _wait_for_the_cut(proxy, after)

        ids = [each.id for each in requests]
        there = {*arrived(harness, harness.dispatcher(), journal)} & {*ids}
        assert there == {*ids[: len(there)]}
        for number, answer in enumerate(answers):
            if answer.status is not DispatchStatus.UNKNOWN:
                assert answer.ok is (number < len(there)), answer

    def test_status_ok_and_error_agree(self, harness: Harness, journal: Journal) -> None:
        """C3: `ok` is true for four statuses, and exactly then there is no error."""
        dispatcher = harness.dispatcher()
        good = every_way(harness, dispatcher, tasks.note.request(journal.path))
        with harness.broken(dispatcher, RuntimeError("boom")):
            bad = every_way(harness, dispatcher, tasks.note.request(journal.path))

        for answer in [*good.values(), *bad.values()]:
            assert answer.ok is (answer.status in OK)
            assert bool(answer) is answer.ok
            assert (answer.error is None) is answer.ok
        assert all(good.values())
        assert not any(bad.values())

    def test_a_response_names_what_it_answers(self, harness: Harness, journal: Journal) -> None:
        """C3: id, alias, backend and request are those of the dispatch; `elapsed` is seconds."""
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path)

        for answer in every_way(harness, dispatcher, request).values():
            assert answer.request_id == request.id
            assert answer.request == request
            assert (answer.dispatcher, answer.backend) == (dispatcher.alias, dispatcher.name)
            assert 0 <= answer.elapsed <= PATIENCE

    def test_a_response_travels_as_json(self, harness: Harness, journal: Journal) -> None:
        """C3: a response is a value: equal after a way through JSON."""
        dispatcher = harness.dispatcher()
        good = send(dispatcher, journal)
        with harness.broken(dispatcher, RuntimeError("boom")):
            bad = send(dispatcher, journal)

        for answer in (good, bad):
            assert DispatchResponse.model_validate_json(answer.model_dump_json()) == answer

    def test_acceptance_is_of_the_declared_kind(self, harness: Harness, journal: Journal) -> None:
        """C3: `confirmed` and `durable` are said only where the capabilities say that they can."""
        dispatcher = harness.dispatcher()
        can = dispatcher.capabilities

        for answer in every_way(harness, dispatcher, tasks.note.request(journal.path)).values():
            assert answer.confirmed <= can.confirmed
            assert answer.durable <= can.durable
            assert answer.is_sync is (can.runs_here and answer.status == DispatchStatus.EXECUTED)

    def test_what_failed_is_neither_confirmed_nor_durable(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C3: work that was not handed over is neither confirmed nor durable."""
        dispatcher = harness.dispatcher()

        with harness.broken(dispatcher, RuntimeError("boom")):
            answers = every_way(harness, dispatcher, tasks.note.request(journal.path))

        for answer in answers.values():
            assert not answer.confirmed
            assert not answer.durable

    def test_a_task_that_fails_here_is_failed(self, harness: Harness, journal: Journal) -> None:
        """C3: FAILED, `handler`, is for work that ran here; a response of a queue never says it."""
        dispatcher = harness.dispatcher()
        once = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)

        response = once.dispatch(journal.path, 9)

        if not dispatcher.capabilities.runs_here:
            assert response.ok
            return
        assert response.status is DispatchStatus.FAILED
        assert response.error is not None
        assert response.error.category is ErrorCategory.HANDLER
        assert isinstance(response.exception, OSError)


def _is_true(harness: Harness, journal: Journal, response: DispatchResponse) -> None:
    """Nothing else than the truth: what the server holds now agrees with the answer."""
    dispatcher = harness.dispatcher()
    # The dispatcher above leads past the proxy: the broken connection must not get in the way.
    expected = [response.request_id] if response.ok else []
    there = response.request_id in arrived(harness, dispatcher, journal, *expected)
    if there:
        assert response.status is not DispatchStatus.REJECTED, "it is there, and said not to be"
    else:
        assert not response.ok, "it is not there, and said to be"


def _wait_for_the_cut(proxy: FaultProxy, after: int = max(CUTS)) -> None:
    """The proxy has cut a connection of ours, so it has cut those before it."""
    with suppress(ConnectionError), socket.create_connection(proxy.address, PATIENCE) as ours:
        ours.sendall(bytes(after + 1))
        ours.recv(1)
