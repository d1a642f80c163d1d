"""Entry point of the command line."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

from dispatchers._errors import ConfigurationError
from dispatchers._payload.errors import DeclarationError, PayloadError

from . import (
    _claims,
    _dead,
    _demo,
    _dev,
    _dispatch,
    _doctor,
    _executions,
    _explain,
    _list,
    _move,
    _new_adapter,
    _relay,
    _schema,
    _status,
    _tasks,
    _worker,
)
from ._arguments import add_global, pair
from ._exit import EXPLAINED, Exit
from ._screen import Screen, screen
from ._surroundings import selected

__all__ = ["main"]

COMMANDS: tuple[Callable[[Any], None], ...] = (
    _demo.add,
    _list.add,
    _doctor.add,
    _tasks.add,
    _explain.add,
    _dispatch.add,
    _worker.add,
    _relay.add,
    _move.add,
    _status.add,
    _dev.add,
    _new_adapter.add,
    _dead.add,
    _claims.add,
    _executions.add,
    _schema.add,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command line without the program's name; by default this process's.

    Returns:
        The exit code.

    Raises:
        SystemExit: The command line is wrong, or asked for help or the version.
    """
    args = _parsed(_parser(), argv)
    as_json = bool(getattr(args, "json", False))
    shown = screen(plain=args.plain, as_json=as_json)
    try:
        place = selected(config=args.config, target=args.target, logs=hasattr(args, "logs"))
        with _others_on_stderr(as_json), place:
            return int(_run(args, shown))
    finally:
        shown.flush()


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; `key=value` may also stand behind options."""
    # argparse itself takes positional arguments only in one run, not on both sides of options.
    args, rest = parser.parse_known_args(argv)
    unknown = [each for each in rest if each.startswith("-") or not hasattr(args, "pairs")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        args.pairs = [*getattr(args, "pairs", ()), *map(pair, rest)]
    except argparse.ArgumentTypeError as exc:
        parser.error(str(exc))
    return args


def _run(args: argparse.Namespace, shown: Screen) -> Exit:
    try:
        found: Exit = args.run(args, shown)
    # Their messages say what to do; a traceback would hide that. Anything else is a defect.
    except (ConfigurationError, DeclarationError, PayloadError) as exc:
        shown.problem(str(exc))
        return Exit.USAGE
    except KeyboardInterrupt:
        shown.problem("interrupted")
        return Exit.INTERRUPTED
    return found


@contextlib.contextmanager
def _others_on_stderr(wanted: bool) -> Generator[None]:
    """Send prints of modules and tasks to standard error."""
    with contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext():
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dispatchers",
        description="Look at, check and run what `dispatchers` is configured to do.",
        epilog=f"new here? dispatchers demo\n\n{EXPLAINED}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    add_global(parser, None)
    commands: Any = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return parser


class _Version(argparse.Action):
    """Says the versions without looking them up in every other run."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del namespace, values, option_string
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"dispatchers {version()} (Python {python})")
        parser.exit()


def version() -> str:
    """The version of what is installed."""
    # Late: it takes tens of milliseconds, which no other command should pay.
    from importlib import metadata

    try:
        return metadata.version("dispatchers")
    except metadata.PackageNotFoundError:
        return "(not installed)"
