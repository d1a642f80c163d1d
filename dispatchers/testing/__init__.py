"""The testing kit: a recorder, a proxy that produces faults, and the conformance suite.

Importing it needs no pytest, except for the conformance suites.
"""

from typing import TYPE_CHECKING

from ._book import Dispatched
from ._failures import InjectedError
from ._install import installed
from ._proxy import FaultProxy
from ._recording import Outage, RecordingDispatcher, RecordingOptions
from ._unchecked import UncheckedDispatches
from .canaries import Canary
from .harness import ABILITIES, Harness
from .journal import Entry, Journal
from .unwritten import assert_written

if TYPE_CHECKING:
    from .conformance import DispatcherConformance, WorkerConformance

__all__ = [
    "ABILITIES",
    "Canary",
    "Dispatched",
    "DispatcherConformance",
    "Entry",
    "FaultProxy",
    "Harness",
    "InjectedError",
    "Journal",
    "Outage",
    "RecordingDispatcher",
    "RecordingOptions",
    "UncheckedDispatches",
    "WorkerConformance",
    "assert_written",
    "installed",
]


def __getattr__(name: str) -> object:
    """Load the suites, and with them pytest, on first use."""
    if name in ("DispatcherConformance", "WorkerConformance"):
        from . import conformance

        return getattr(conformance, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
