"""The end of a process that a handler has forked, and that returned from the handler."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress

from dispatchers._worker.run import RunSettings

__all__ = ["flush_output", "leave"]


def leave(exc: BaseException | None, settings: RunSettings) -> None:
    """End this process as a plain program ends after its last line.

    It is a copy of a worker, and must not go on as one: it would settle its parent's delivery and
    take the next. A caller that waits for the run (`quiet`) has its own program after the fork.
    """
    if settings.quiet:
        return
    code = _exit_code(exc)
    flush_output()
    # Not `sys.exit`: exit functions and `finally` blocks above belong to the worker.
    os._exit(code)


def flush_output() -> None:
    """Write what a handler has printed: it is looked for when the run has ended."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a handler may have closed it, or put anything there
            stream.flush()


def _exit_code(exc: BaseException | None) -> int:
    if exc is None:
        return 0
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    traceback.print_exception(exc)
    return 1
