"""The conformance suite; importing it needs pytest."""

import pkgutil

import pytest

# Before the modules are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__))
)

from ._suite import DispatcherConformance  # noqa: E402
from ._worker import WorkerConformance  # noqa: E402

__all__ = ["DispatcherConformance", "WorkerConformance"]
