"""Return the settings of runs that a dispatcher's options give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchers._models.options import BackendOptions
from dispatchers._stores.loading import idempotency

if TYPE_CHECKING:
    from dispatchers._worker.run import RunSettings

__all__ = ["run_settings"]


def run_settings(options: BackendOptions) -> RunSettings:
    """Return the settings of runs that a dispatcher's options give."""
    from dispatchers._worker.run import RunSettings

    return RunSettings(
        on_handler_error=options.on_handler_error,
        idempotency=None if options.idempotency is None else idempotency(options.idempotency),
        max_deliveries=options.max_deliveries,
        skew_grace=options.skew_grace,
        tracebacks=options.tracebacks,
    )
