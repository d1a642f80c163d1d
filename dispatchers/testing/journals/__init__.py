"""The conformance suite of journals: `JournalConformance`, for `JournalHarness`; needs pytest.

::

    class AcmeHarness(JournalHarness):
        def __init__(self, url):
            self.url = url

        @property
        def opener(self):
            return functools.partial(AcmeJournal, self.url)


    class TestAcme(JournalConformance):
        @pytest.fixture
        def harness(self):
            return AcmeHarness(fresh_database())
"""

import pkgutil

import pytest

# Before the modules are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__))
)

from ._harness import ABILITIES, JournalHarness  # noqa: E402
from ._suite import JournalConformance  # noqa: E402

__all__ = ["ABILITIES", "JournalConformance", "JournalHarness"]
