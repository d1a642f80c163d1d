"""The testing kit: a recorder, a proxy that produces faults, and the conformance suite.

Importing it needs no pytest, except for `DispatcherConformance`.
"""

from typing import TYPE_CHECKING

from ._book import Dispatched
from ._failures import InjectedError
from ._install import installed
from ._proxy import FaultProxy
from ._recording import Outage, RecordingDispatcher, RecordingOptions
from ._unchecked import UncheckedDispatches
from .harness import ABILITIES, Harness
from .journal import Entry, Journal

if TYPE_CHECKING:
    from .conformance import DispatcherConformance

__all__ = [
    "ABILITIES",
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
    "installed",
]


def __getattr__(name: str) -> object:
    """Load the suite, and with it pytest, when somebody asks for it."""
    if name == "DispatcherConformance":
        from .conformance import DispatcherConformance

        return DispatcherConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
