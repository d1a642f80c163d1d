"""`DispatcherConformance`: the suite that an adapter's author inherits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._at_once import ServesAtOnce
from ._available import KnowsItself
from ._batches import AnswersEach
from ._concurrency import ServesMany
from ._failures import StructuredFailures
from ._gathered import ServesGathered
from ._never_hangs import NeverHangs
from ._never_raises import NeverRaises
from ._once import LosesNothing
from ._options import HonoursOptions
from ._same_bytes import SameBytes
from ._says_what_is_known import SaysWhatIsKnown
from ._wrong_code import JudgesRuns

__all__ = ["DispatcherConformance", "Suite"]


class Suite:
    """Fixtures of the cases."""

    @pytest.fixture
    def harness(self) -> Harness:
        """The author's harness.

        Raises:
            NotImplementedError: The fixture was not overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `harness`")

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Journal:
        """The journal of one case's handlers."""
        # In the case's own folder: runs that are late cannot write into another case's.
        return Journal(tmp_path / "journal")

    @pytest.fixture(autouse=True)
    def _end(self, harness: Harness) -> Iterator[None]:
        """Give back what the harness made."""
        yield
        # Whatever the case left open: a worker of it would take the next one's work.
        harness.end()


@pytest.mark.dispatchers_unchecked
class DispatcherConformance(
    NeverRaises,
    NeverHangs,
    SaysWhatIsKnown,
    StructuredFailures,
    SameBytes,
    HonoursOptions,
    AnswersEach,
    ServesMany,
    ServesAtOnce,
    ServesGathered,
    LosesNothing,
    JudgesRuns,
    KnowsItself,
    Suite,
):
    """Every rule of the contract that can be judged from outside; each case begins with its number.

    ::

        class TestAcme(DispatcherConformance):
            @pytest.fixture
            def harness(self, tmp_path: Path) -> AcmeHarness:
                return AcmeHarness(tmp_path)

    A case that cannot hold for a backend is overridden, with the reason, and named in the
    adapter's README::

            @pytest.mark.xfail(reason="the server confirms before it has written (issue 12)")
            def test_durable_work_survives_the_death_of_its_process(self, harness, journal):
                super().test_durable_work_survives_the_death_of_its_process(harness, journal)
    """
