"""`dispatchers executions`: look at executions of workflows, and act on them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from dispatchers._journal.values import Status
from dispatchers._runtime.importing import import_object

from ._arguments import Runner, add_command, whole
from ._durations import seconds
from ._exit import Exit
from ._screen import Screen

__all__ = ["add"]

TEXT = """
List executions of workflows, read what they did, cancel, resume, export or forget them.

An execution is named by its id, by its key, or by the first characters of either where no other
begins so. The journal is the one that the setting `workflows` names.
"""
LIST = """
List executions, youngest first.
"""
SHOW = """
Show one execution: status, arguments, published state, result, what it waits for.

Values are shortened; they may hold anything.
"""
JOURNAL = """
Tell what an execution did, line by line, and what it waits for.

The number is the command's, for `resume --from`. Values are shortened; they may hold anything.
"""
CANCEL = """
Cancel executions: their code gets CancelledError where it waits, and may still undo what it did.
"""
TERMINATE = """
End executions without running their code; nothing is undone, and children are cancelled.
"""
RESUME = """
Let failed, cancelled, terminated or stuck executions go on.

Without --from, the command that failed last is carried out again; with it, that command and all
that came after it. `journal ID` shows the numbers.
"""
EXPORT = """
Write executions with their journals as JSON, for `assert_replays` in tests.

The files hold all values: arguments, results, signals.
"""
FORGET = """
Delete executions that ended longer ago, with their journals, for ever.
"""
SWEEP = """
Look once for executions that want a turn and were not woken, and wake them.

`dispatchers worker` does so by itself; this is for deployments without one, from a scheduler.
"""

WORDS = tuple(each.name.lower() for each in Status)


@dataclass(frozen=True)
class Late:
    """A command that is imported when it is run: workflows would slow the others down."""

    place: str
    """Module of this package, and its function."""

    def __call__(self, args: argparse.Namespace, shown: Screen) -> Exit:
        run: Runner = import_object(f"dispatchers.cli.{self.place}")
        return run(args, shown)


def add(commands: Any) -> None:
    """Add the command and its actions."""
    parser = add_command(commands, "executions", Late("_executions_shown:show_list"), TEXT)
    actions: Any = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_list(actions)
    _add_one(actions, "show", Late("_executions_shown:show_one"), SHOW)
    _add_one(actions, "journal", Late("_executions_shown:show_journal"), JOURNAL)
    _add_ends(actions)
    parser = _add_many(actions, "resume", RESUME)
    parser.add_argument(
        "--from", dest="number", metavar="NUMBER", type=whole, help="carry out again from here"
    )
    parser = _add_many(actions, "export", EXPORT)
    parser.add_argument("--out", metavar="DIR", help="a file for each execution in this folder")
    _add_forget(actions)
    add_command(actions, "sweep", Late("_executions_acts:sweep"), SWEEP)


def _add_list(actions: Any) -> None:
    late = Late("_executions_shown:show_list")
    parser = add_command(actions, "list", late, LIST, as_json=True)
    parser.add_argument(
        "--status", action="append", choices=WORDS, default=[], help="of this status; repeatable"
    )
    parser.add_argument("--workflow", metavar="NAME", help="only of this workflow")
    parser.add_argument("--key", metavar="TEXT", help="only with this text in the id")
    parser.add_argument("--parent", metavar="ID", help="only children of this execution")
    parser.add_argument(
        "--older-than", metavar="TIME", type=seconds, help="begun longer ago: 30m, 12h, 7d"
    )
    parser.add_argument(
        "--limit", metavar="N", type=whole, help="at most so many; default: 100, with --json all"
    )


def _add_one(actions: Any, name: str, run: Runner, text: str) -> None:
    parser = add_command(actions, name, run, text, as_json=True)
    parser.add_argument("id", metavar="ID", help="id or key")
    parser.add_argument("--values", action="store_true", help="show all values in full")


def _add_ends(actions: Any) -> None:
    for name, text in (("cancel", CANCEL), ("terminate", TERMINATE)):
        parser = _add_many(actions, name, text)
        parser.add_argument("--reason", metavar="TEXT", default="", help="for the journal")


def _add_many(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser = add_command(actions, name, Late(f"_executions_acts:{name}"), text)
    parser.add_argument("ids", metavar="ID", nargs="+", help="ids or keys")
    return parser


def _add_forget(actions: Any) -> None:
    parser = add_command(actions, "forget", Late("_executions_acts:forget"), FORGET)
    parser.add_argument(
        "--older-than", metavar="TIME", type=seconds, required=True, help="ended longer ago: 30d"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
