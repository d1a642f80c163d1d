"""`dispatchers schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import argparse
from typing import Any

from ._arguments import add_command
from ._exit import Exit
from ._screen import Screen

__all__ = ["add"]

TEXT = """
Print the JSON Schema of dispatchers.toml, with the options of every installed backend.

Editors complete and check the file with it:
  dispatchers schema > dispatchers.schema.json
  then begin dispatchers.toml with   #:schema ./dispatchers.schema.json
"""


def add(commands: Any) -> None:
    """Add the command."""
    add_command(commands, "schema", run, TEXT)


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Print the schema."""
    del args
    from dispatchers._config.json_schema import settings_schema

    shown.json(settings_schema())
    return Exit.OK
