"""`dispatchers list`: the backends there are."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from dispatchers._config.registry import BackendInfo, backends
from dispatchers._models.capabilities import Capabilities

from ._arguments import add_command
from ._exit import Exit
from ._screen import Screen

__all__ = ["abilities", "add"]

TEXT = """
List the backends: whose, installed or not and why, and what they can do.

`state` is installed, missing (its library is not installed), broken (importing it failed) or
conflict (two owners). What a backend cannot do is refused, never silently left out.
"""

WORDS: Mapping[str, str] = {
    "runs_here": "runs in the call",
    "durable": "durable",
    "delay": "delay",
    "priority": "priority",
    "retries": "retries",
    "deduplicate": "deduplicate",
    "kills": "kills at the time limit",
    "queues": "queues",
    "batch": "batch",
    "worker": "worker",
    "dead_letters": "dead letters",
    "stats": "figures by queue",
}
"""Capabilities that tell backends apart."""


def add(commands: Any) -> None:
    """Add the command."""
    add_command(commands, "list", run, TEXT, as_json=True)


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Show every backend."""
    # Classes only: no dispatcher is built.
    found = backends()
    if args.json:
        shown.json([_facts(info) for info in found])
        return Exit.OK
    shown.table(
        ("backend", "state", "from", "can"),
        [(info.name, info.state, info.owner, _said(info)) for info in found],
    )
    return Exit.OK


def _said(info: BackendInfo) -> str:
    if info.reason is not None:
        return info.reason
    return abilities(info.cls.capabilities) if info.cls else ""


def abilities(capabilities: Capabilities) -> str:
    """Describe a backend's capabilities."""
    found = [word for name, word in WORDS.items() if getattr(capabilities, name)]
    return ", ".join(found) or "nothing beyond handing over"


def _facts(info: BackendInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "owner": info.owner,
        "state": info.state,
        "reason": info.reason,
        "extra": info.extra,
        "capabilities": info.cls.capabilities.model_dump(mode="json") if info.cls else None,
    }
