"""The testing kit: a recorder, the conformance suite, and a proxy that produces faults.

Importing it needs no pytest, except for `DispatcherConformance`.
"""

from ._book import Dispatched
from ._failures import InjectedError
from ._install import installed
from ._recording import Outage, RecordingDispatcher, RecordingOptions
from ._unchecked import UncheckedDispatches

__all__ = [
    "Dispatched",
    "InjectedError",
    "Outage",
    "RecordingDispatcher",
    "RecordingOptions",
    "UncheckedDispatches",
    "installed",
]
