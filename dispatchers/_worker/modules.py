"""Importing the task modules of the configuration, in workers that are a backend's own."""

from __future__ import annotations

from dispatchers._config.api import current
from dispatchers._errors import ConfigurationError
from dispatchers._runtime.importing import cause, imported

__all__ = ["import_modules"]


def import_modules() -> None:
    """Import the modules of the configuration, so that their tasks are registered.

    For a transport's own worker program, which has imported only its own; `dispatchers worker`
    imports them by itself. Cheap where they are imported already.

    Raises:
        ConfigurationError: One cannot be imported; the message has the cause.
    """
    for module in current().modules:
        try:
            imported(module)
        except Exception as exc:
            raise ConfigurationError(
                f"importing the task module {module!r} raised {cause(exc)}"
            ) from exc
