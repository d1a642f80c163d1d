"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from dispatchers._errors import ConfigurationError

from ._exit import Exit
from ._screen import Screen

__all__ = ["Runner", "add_command", "add_global", "arguments_of", "meant", "pair", "whole"]

Runner = Callable[[argparse.Namespace, Screen], Exit]


def add_command(
    commands: Any, name: str, run: Runner, text: str, *, as_json: bool = False
) -> argparse.ArgumentParser:
    """Add a command's parser; its text begins with the summary."""
    short, _, rest = text.strip().partition("\n\n")
    # Only where a blank follows: a dot inside a name does not end the summary.
    summary = re.split(r"[:;.](?:\s|$)", short)[0]
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary[:1].lower() + summary[1:],
        description=short,
        epilog=rest or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    # Suppressed: the default of a subcommand would overwrite what stood before the command.
    add_global(parser, argparse.SUPPRESS)
    if as_json:
        parser.add_argument("--json", action="store_true", help="JSON for programs")
    return parser


def add_global(parser: argparse.ArgumentParser, default: object) -> None:
    """The options that are understood before a command and after it."""
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--config", metavar="FILE", default=default, help="the configuration (DISPATCHERS_CONFIG)"
    )
    group.add_argument(
        "--target", metavar="NAME", default=default, help="the target (DISPATCHERS_TARGET)"
    )
    group.add_argument(
        "--plain",
        action="store_true",
        default=default if default is argparse.SUPPRESS else False,
        help="plain text, without tables drawn and colours",
    )


def pair(text: str) -> tuple[str, str]:
    """`key=value`.

    Raises:
        argparse.ArgumentTypeError: There is no `=`, or nothing before it.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an argument: write key=value, or --args JSON"
        )
    return key, value


def whole(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def arguments_of(text: str | None) -> dict[str, Any]:
    """Parse arguments by name from a JSON object.

    Raises:
        ConfigurationError: It is not a JSON object.
    """
    try:
        found: object = json.loads(text or "{}")
    except (ValueError, RecursionError) as exc:
        # RecursionError: JSON nested deeper than the interpreter's stack.
        raise ConfigurationError(f"--args is not JSON: {exc}") from None
    if not isinstance(found, dict):
        raise ConfigurationError(
            f"--args must be a JSON object of arguments by name, not {type(found).__name__}"
        )
    return cast("dict[str, Any]", found)


def meant(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Values of `key=value`: JSON where it is some, else the text itself."""
    return {key: _meant(value) for key, value in pairs}


def _meant(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
