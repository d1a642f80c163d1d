"""The conformance suite of stores of held work: `SourceConformance`, for `SourceHarness`.

It needs pytest. The rules F7 to F10 and the failures O3 to O15 are those of docs/never-lose.md.

::

    class AcmeHarness(SourceHarness):
        def __init__(self, url):
            self.url = url

        @property
        def opener(self):
            return functools.partial(AcmeSource, self.url)

        def put(self, rows): ...

        def dead(self): ...


    class TestAcme(SourceConformance):
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

from ._harness import ABILITIES, PutRow, SourceHarness  # noqa: E402
from ._suite import SourceConformance  # noqa: E402

__all__ = ["ABILITIES", "PutRow", "SourceConformance", "SourceHarness"]
