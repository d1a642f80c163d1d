"""Hands work over to RQ, and runs it in RQ's workers, made lossless.

`pip install "dispatchers[rq]"`; `adapters/rq/README.md` says the rest.
"""

from ._dispatcher import RQDispatcher
from ._native import NativeJob, native
from ._options import RQOptions
from ._plain import run
from ._rq_worker import HorseWorker, SimpleWorker

__all__ = [
    "HorseWorker",
    "NativeJob",
    "RQDispatcher",
    "RQOptions",
    "SimpleWorker",
    "native",
    "run",
]
