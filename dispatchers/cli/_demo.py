"""`dispatchers demo`: real work through the durable built-in backend."""

from __future__ import annotations

import argparse
from typing import Any

from ._arguments import add_command, whole
from ._exit import Exit
from ._screen import Screen

__all__ = ["add"]

TEXT = """
Index your Python's standard library with tasks, worker processes and one SQLite file.

Nothing needs to be installed or configured. Kill it half-way and start it again: it goes on
where it was. Everything it writes is in one folder, which it names.
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "demo", run, TEXT)
    parser.add_argument(
        "--dir", metavar="DIR", help="where to work; default: below the temporary folder"
    )
    parser.add_argument("--workers", metavar="N", type=whole, help="worker processes")
    parser.add_argument("--limit", metavar="N", type=whole, help="only so many files")
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run")


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Run the demo."""
    from dispatchers.demo import run as run_demo

    return run_demo(
        shown, folder=args.dir, workers=args.workers, limit=args.limit, fresh=args.fresh
    )
