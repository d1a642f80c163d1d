"""`dispatchers relay`: hand over what dispatchers hold in stores."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from dispatchers._config.api import get_dispatcher
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError
from dispatchers._runtime.log_format import JSON, log_to_stderr
from dispatchers._worker.relays import Relays, forwarders_of, holding
from dispatchers._worker.signals import stopped_by_signals

from ._arguments import add_command
from ._exit import Exit
from ._places import dispatchers
from ._screen import Screen
from ._surroundings import selected_target
from ._worker import LEVELS

__all__ = ["add"]

LOOK = 0.2
"""Seconds between two looks whether it is over."""
TEXT = """
Hand over what dispatchers hold in stores: what `spill` kept while its broker was down, and what
was committed into an `outbox`.

A process that put it there hands it over by itself as long as it lives, and `dispatchers worker`
does too; this is for what they did not live to do. Any number may run: one of them hands over, and
another takes its place when it is gone. SIGTERM and Ctrl-C stop it.

With --drain it ends when nothing is held. A store or a broker that cannot be reached is waited for,
and logged: a cron job bounds the time by `timeout 5m`.
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "relay", run, TEXT)
    option = parser.add_argument
    option("alias", metavar="ALIAS", nargs="?", help="default: every dispatcher that holds work")
    option(
        "--drain",
        action="store_true",
        help="end when nothing is held; waits for what cannot be reached",
    )
    option("--log-level", choices=LEVELS, default="info", help="default: info")
    option("--log-format", choices=("text", JSON), default="text", help="default: text")


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Hand over until told to stop."""
    log_to_stderr(args.log_level.upper(), JSON if args.log_format == JSON else None)
    target = selected_target(args.target)
    found = holding() if args.alias is None else {args.alias: get_dispatcher(args.alias)}
    forwarders = forwarders_of(found.values())
    if not forwarders:
        raise ConfigurationError(_none(found or dispatchers()))
    relays = Relays(forwarders, drain=args.drain)
    with stopped_by_signals(relays.stop):
        aliases = ", ".join(repr(alias) for alias, each in found.items() if forwarders_of([each]))
        shown.note(f"relay for {aliases} of target {target!r}; stop with Ctrl-C")
        relays.start()
        while not relays.are_over():
            relays.join(LOOK)
    return Exit.OK


def _none(found: Mapping[str, BaseDispatcher]) -> str:
    words = ", ".join(f"{alias!r} ({each.name})" for alias, each in found.items())
    return f"nothing is held that a relay could hand over: {words} hold no work themselves"
