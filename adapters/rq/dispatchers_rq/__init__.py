"""Hands work over to RQ, and runs it in RQ's workers, made lossless.

`pip install "dispatchers[rq]"`; `adapters/rq/README.md` says the rest.
"""

from typing import Any

from ._dispatcher import RQDispatcher
from ._entry import run
from ._execution import HorseWorker, SimpleWorker
from ._native import NativeJob, native
from ._options import RQBaseOptions, RQOptions
from ._worker import refuse_unsupported

__all__ = [
    "HorseWorker",
    "NativeJob",
    "RQBaseOptions",
    "RQDispatcher",
    "RQOptions",
    "SimpleWorker",
    "native",
    "refuse_unsupported",
    "run",
]


def __getattr__(name: str) -> Any:
    """Resolve `run.TASK` to `run`: the function path of each job ends with its task's name."""
    if name.startswith("run."):
        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
