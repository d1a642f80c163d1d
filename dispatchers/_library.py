"""Whether a library is there, found out without importing it."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["is_importable"]


def is_importable(module: str) -> bool:
    """Whether `import module` would find something. Imports at most its parent packages."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False
