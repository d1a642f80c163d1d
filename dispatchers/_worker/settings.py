"""Return the settings of runs that a dispatcher's options give."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dispatchers._models.options import BackendOptions
from dispatchers._runtime.identity import Identity
from dispatchers._stores.loading import idempotency

if TYPE_CHECKING:
    from dispatchers._worker.run import RunSettings

__all__ = ["run_settings"]

KEPT = 32
"""Options whose settings are kept: more than a process has dispatchers, as a rule."""


def run_settings(
    options: BackendOptions, *, quiet: bool = False, interrupts: bool = False
) -> RunSettings:
    """Return the settings of runs that a dispatcher's options give; kept for the latest few.

    Args:
        options: The dispatcher's.

        quiet: The caller waits for the run, and writes its own record of a failure.

        interrupts: The worker raises in a run at its time limit.

    Raises:
        ConfigurationError: The idempotency store cannot be opened.
    """
    # Asked for at each delivery by workers that are handed one at a time.
    return _settings(Identity(options), quiet, interrupts)


@lru_cache(maxsize=KEPT)
def _settings(
    options: Identity[BackendOptions],
    quiet: bool,
    interrupts: bool,
) -> RunSettings:
    from dispatchers._worker.run import RunSettings

    found = options.value
    return RunSettings(
        on_handler_error=found.on_handler_error,
        idempotency=None if found.idempotency is None else idempotency(found.idempotency),
        max_deliveries=found.max_deliveries,
        skew_grace=found.skew_grace,
        quiet=quiet,
        interrupts=interrupts,
        tracebacks=found.tracebacks,
    )
