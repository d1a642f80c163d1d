"""The conformance suite of dispatchers that pass work on: `PassingConformance`; needs pytest.

For those that hand a request to one of several others, as `failover` does, or keep it where another
does not take it, as `spill` does. The rules F1 to F5 are those of docs/never-lose.md.

::

    class NearestHarness(PassingHarness):
        def make(self, members, deadline):
            return NearestDispatcher(to=members, deadline=deadline)


    class TestNearest(PassingConformance):
        @pytest.fixture
        def harness(self):
            return NearestHarness()
"""

import pkgutil

import pytest

# Before the modules are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__))
)

from ._harness import PassingHarness  # noqa: E402
from ._suite import PassingConformance  # noqa: E402

__all__ = ["PassingConformance", "PassingHarness"]
