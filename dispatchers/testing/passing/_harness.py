"""`PassingHarness`: how a dispatcher that passes work on is made, written by its author."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import pytest

from dispatchers._dispatch.base import BaseDispatcher

__all__ = ["PassingHarness"]


class PassingHarness(ABC):
    """Makes dispatchers that pass work on to members."""

    most: ClassVar[int] = 3
    """Members that it takes: the cases that need several are skipped where it takes one."""
    keeps: ClassVar[bool] = False
    """What no member takes is kept, and the answer `DEFERRED`; else it is `REJECTED`."""

    @abstractmethod
    def make(self, members: Sequence[BaseDispatcher], deadline: float) -> BaseDispatcher:
        """Return a dispatcher that passes on to these, in this order, in so many seconds."""

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back what the case has used."""

    def need(self, members: int) -> None:
        """Skip the case where it takes fewer members."""
        if self.most < members:
            pytest.skip(f"it passes on to {self.most}, and the case is about {members}")

    def need_keeping(self) -> None:
        """Skip the case where nothing is kept."""
        if not self.keeps:
            pytest.skip("it keeps nothing, and the case is about what is kept")
