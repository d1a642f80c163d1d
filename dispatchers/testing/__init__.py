"""The testing kit: a recorder, the conformance suite, and a proxy that produces faults.

Importing it needs no pytest, except for `DispatcherConformance`.
"""

from ._book import Dispatched
from ._failures import InjectedError
from ._recording import RecordingDispatcher, RecordingOptions

__all__ = ["Dispatched", "InjectedError", "RecordingDispatcher", "RecordingOptions"]
