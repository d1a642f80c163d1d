"""`PassingConformance`: the suite that the author of a dispatcher that passes work on inherits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._cases import Answers, Moves
from ._harness import PassingHarness

__all__ = ["PassingConformance"]


class PassingConformance(Moves, Answers):
    """Every promise of rules F1 to F5 that shows from outside."""

    @pytest.fixture
    def harness(self) -> PassingHarness:
        """The author's harness.

        Raises:
            NotImplementedError: The fixture was not overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `harness`")

    @pytest.fixture(autouse=True)
    def _end(self, harness: PassingHarness) -> Iterator[None]:
        """Give back what the harness made."""
        yield
        harness.close()
