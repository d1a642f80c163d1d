"""`SourceConformance`: the suite that the author of a store of held work inherits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dispatchers.forwarding import Source

from ._forwards import Forwards
from ._harness import SourceHarness
from ._kills import Kills
from ._leads import Leads
from ._settles import Settles
from ._takes import Takes

__all__ = ["SourceConformance"]


class SourceConformance(Takes, Settles, Leads, Forwards, Kills):
    """Every promise of a `Source` that can be judged from outside; each case has a number.

    A case that cannot hold for a store is overridden, with the reason::

        @pytest.mark.xfail(reason="rows come back behind those that came later")
        def test_lanes_keep_their_order(self, harness, source, monkeypatch):
            super().test_lanes_keep_their_order(harness, source, monkeypatch)
    """

    @pytest.fixture
    def harness(self) -> SourceHarness:
        """The author's harness.

        Raises:
            NotImplementedError: The fixture was not overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `harness`")

    @pytest.fixture
    def source(self, harness: SourceHarness) -> Source:
        """One source of the harness."""
        return harness.source()

    @pytest.fixture(autouse=True)
    def _end(self, harness: SourceHarness) -> Iterator[None]:
        """Give back what the harness made."""
        yield
        harness.end()
