"""Hands work over to Dramatiq, and runs it in Dramatiq's own workers.

`pip install "dispatchers[dramatiq]"`; `adapters/dramatiq/README.md` says the rest. Register the
tasks with the broker whose workers shall run them::

    from dispatchers_dramatiq import register

    register(broker)
"""

from ._dispatcher import DramatiqDispatcher
from ._native import NativeActor, native
from ._options import DramatiqOptions
from ._registration import register

__all__ = ["DramatiqDispatcher", "DramatiqOptions", "NativeActor", "native", "register"]
