"""The command line: `dispatchers`, or `python -m dispatchers`.

Tables and colours come from rich where the extra `cli` is installed and a terminal reads along;
everything else reads plain text, or JSON on request. Each command is a module of its own.
"""

from ._main import main

__all__ = ["main"]
