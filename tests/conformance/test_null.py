"""`null` keeps the contract, as far as one can that keeps nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchers.backends.null import NullDispatcher
from dispatchers.testing import DispatcherConformance, Harness, Journal

NOTHING = "null keeps nothing, keys included: whoever configures it wants no work done"


class NullHarness(Harness):
    """Nothing."""

    without = dict.fromkeys(
        (
            "received",
            "worker",
            "stepping",
            "dead",
            "crash",
            "network",
            "stall",
            "processes",
            "retry",
        ),
        "null does nothing",
    )

    def make_dispatcher(self, **options: Any) -> NullDispatcher:
        return NullDispatcher(**options)


class TestNull(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return NullHarness()

    @pytest.mark.xfail(reason=NOTHING)
    def test_work_with_a_known_key_is_a_duplicate(self, harness: Harness, journal: Journal) -> None:
        super().test_work_with_a_known_key_is_a_duplicate(harness, journal)

    @pytest.mark.xfail(reason=NOTHING)
    def test_the_same_request_is_a_duplicate(self, harness: Harness, journal: Journal) -> None:
        super().test_the_same_request_is_a_duplicate(harness, journal)
