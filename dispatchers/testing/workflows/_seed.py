"""The number from which a test's order follows."""

from __future__ import annotations

import os

from dispatchers._errors import ConfigurationError

__all__ = ["VARIABLE", "seed_of"]

VARIABLE = "WORKFLOW_SEED"
"""The variable that repeats a run; not one of the configuration, which begin with another word."""


def seed_of(option: int | None) -> int:
    """Return the seed that an option or the variable gives, else one by chance.

    Raises:
        ConfigurationError: The variable is no whole number.
    """
    if option is not None:
        return option
    text = os.environ.get(VARIABLE)
    if text is None:
        return int.from_bytes(os.urandom(4), "big")
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{VARIABLE}={text!r} is no whole number") from None
