"""`dispatchers demo`: real work through the durable built-in backend."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from dispatchers._errors import ConfigurationError
from dispatchers._runtime.importing import import_object
from dispatchers._runtime.platform import lacks_posix

from ._arguments import add_command, whole
from ._exit import Exit
from ._screen import Screen

__all__ = ["add"]

TEXT = """
Index your Python's standard library with tasks, worker processes and one SQLite file.

A workflow follows, whose worker is killed half-way by kill -9; another goes on.

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
    parser.add_argument("--only", choices=("tasks", "workflow"), help="one half of it")
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run")


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Run the demo; where its worker cannot run, nothing is dispatched first."""
    if (lack := lacks_posix()) is not None:
        raise ConfigurationError(
            f"the demo starts a worker, which needs a POSIX system, and {lack}: "
            "run it on Linux, macOS or WSL"
        )
    # By name, since the demo uses the command line's own parts: a plain import would be a cycle.
    run_demo: Callable[..., Exit] = import_object("dispatchers.demo:run")

    options = {"workers": args.workers, "limit": args.limit, "fresh": args.fresh}
    if args.only:
        options["parts"] = (args.only,)
    return run_demo(shown, folder=args.dir, **options)
