"""`JournalConformance`: the suite that a journal's author inherits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._answers import Answers
from ._calls import Calls
from ._commits import Commits
from ._ends import Ends
from ._harness import JournalHarness
from ._limits import Limits
from ._processes import Processes
from ._resume import Resume
from ._signals import Signals
from ._starts import Starts
from ._sweep import Sweep
from ._timers import Timers
from ._turns import Turns

__all__ = ["JournalConformance"]


class JournalConformance(
    Starts,
    Turns,
    Commits,
    Answers,
    Signals,
    Timers,
    Sweep,
    Ends,
    Resume,
    Limits,
    Processes,
):
    """Every promise of the protocol that can be judged from outside; each case has a number.

    A case that cannot hold for a journal is overridden, with the reason::

        @pytest.mark.xfail(reason="the server's clock cannot be set")
        def test_a_clock_that_is_set_costs_no_turn(self, harness, calls):
            super().test_a_clock_that_is_set_costs_no_turn(harness, calls)
    """

    @pytest.fixture
    def harness(self) -> JournalHarness:
        """The author's harness.

        Raises:
            NotImplementedError: The fixture was not overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `harness`")

    @pytest.fixture
    def calls(self, harness: JournalHarness) -> Calls:
        """One journal of the harness, called with few words."""
        return Calls(harness.journal(), harness.lease)

    @pytest.fixture(autouse=True)
    def _end(self, harness: JournalHarness) -> Iterator[None]:
        """Give back what the harness made."""
        yield
        harness.end()
