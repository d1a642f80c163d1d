"""`cloud_tasks` keeps the contract: the official client, a stand-in, the worker's endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatchers.testing import DispatcherConformance, Harness, tasks
from dispatchers.testing.conformance import _tools
from dispatchers.testing.conformance._tools import run_until
from dispatchers.testing.journal import Journal

from .harness import CloudTasksHarness
from .service import Service

NAMES = "the service knows a key as a task's name, for an hour beyond its end, and no more of it"
SIZE = "the service's limit is one of tasks, with their headers and address, not of envelopes"
ONE_COUNT = "a push queue has one count, of attempts and deliveries alike"

ONE_CONNECTION = "all calls share one connection of HTTP/2: what its buffers hold goes first"
FORKS = "gRPC survives no fork during its calls, and a fork waits for them for two seconds only"


class TestCloudTasks(DispatcherConformance):
    @pytest.fixture
    def harness(self, service: Service, tmp_path: Path) -> Harness:
        return CloudTasksHarness(service, tmp_path)

    @pytest.mark.xfail(reason=ONE_COUNT)
    def test_failed_work_is_tried_again(self, harness: Harness, journal: Journal) -> None:
        super().test_failed_work_is_tried_again(harness, journal)

    def test_attempts_are_counted(self, harness: Harness, journal: Journal) -> None:
        """C9: in place of the case above: as many attempts, each of them a delivery."""
        dispatcher = harness.dispatcher()

        tasks.fail.options(dispatcher=dispatcher).dispatch(journal.path, 2)
        run_until(harness, dispatcher, lambda: "succeeded" in journal.texts)

        assert journal.texts == ["failed", "failed", "succeeded"]
        assert [(e.attempt, e.deliveries) for e in journal.entries] == [(1, 1), (2, 2), (3, 3)]

    @pytest.mark.xfail(reason=ONE_COUNT)
    def test_deliveries_are_no_attempts(self, harness: Harness, journal: Journal) -> None:
        super().test_deliveries_are_no_attempts(harness, journal)

    @pytest.mark.xfail(reason=SIZE)
    def test_the_largest_envelope_is_taken(self, harness: Harness, journal: Journal) -> None:
        super().test_the_largest_envelope_is_taken(harness, journal)

    @pytest.mark.xfail(reason=NAMES)
    def test_a_key_with_other_arguments_is_a_conflict(
        self, harness: Harness, journal: Journal
    ) -> None:
        super().test_a_key_with_other_arguments_is_a_conflict(harness, journal)

    @pytest.mark.xfail(reason=NAMES)
    def test_a_request_may_be_repeated_after_its_death(
        self, harness: Harness, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The key stays taken for an hour: there is nothing to wait for.
        monkeypatch.setattr(_tools, "PATIENCE", 5.0)
        super().test_a_request_may_be_repeated_after_its_death(harness, journal)

    @pytest.mark.xfail(reason=ONE_CONNECTION, strict=False)
    @pytest.mark.parametrize("way", ["threads", "loop"])
    def test_a_large_one_holds_up_no_small_ones(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        super().test_a_large_one_holds_up_no_small_ones(harness, journal, way)

    @pytest.mark.xfail(reason=FORKS, strict=False)
    def test_a_child_forked_while_many_wait_sends_none_of_them(
        self, harness: Harness, journal: Journal
    ) -> None:
        super().test_a_child_forked_while_many_wait_sends_none_of_them(harness, journal)
