"""A command of `dispatchers` as one of Django's: the arguments are handed on as they are."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from dispatchers.cli import main

__all__ = ["Forwarding"]

DJANGO_S = ("--settings", "--pythonpath")
"""Options that `manage.py` has seen to before the command begins."""


class Forwarding(BaseCommand):
    """Runs `dispatchers COMMAND` in this process, in which Django is set up.

    Call it by `call_command("dispatchers_worker", "default", "--drain")`, or from the shell.
    """

    forwarded = ""
    """The command; the first argument where it is empty."""
    requires_system_checks = ()  # the command says what is wrong, with all there is

    def run_from_argv(self, argv: list[str]) -> None:
        """End the process with the command's own exit code."""
        sys.exit(self._forward(_without_django_s(argv[2:])))

    def execute(self, *args: Any, **options: Any) -> str | None:
        """The same from code.

        Raises:
            SystemExit: The command ended with another code than 0.
        """
        del options
        if code := self._forward([str(each) for each in args]):
            raise SystemExit(code)
        return None

    def _forward(self, args: list[str]) -> int:
        connections.close_all()  # what was opened at the start would go stale, unwatched
        return main([self.forwarded, *args] if self.forwarded else args)


def _without_django_s(args: list[str]) -> list[str]:
    """The arguments without those that Django has read."""
    rest: list[str] = []
    given = iter(args)
    for each in given:
        if each in DJANGO_S:
            next(given, None)
        elif not each.startswith(tuple(f"{option}=" for option in DJANGO_S)):
            rest.append(each)
    return rest
