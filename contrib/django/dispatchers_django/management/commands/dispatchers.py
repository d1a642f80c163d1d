"""`manage.py dispatchers COMMAND`: every command of `dispatchers` with Django set up."""

from __future__ import annotations

from dispatchers_django.management._command import Forwarding

__all__ = ["Command"]


class Command(Forwarding):
    """`dispatchers` with Django set up."""

    help = "Run a command of dispatchers: dead, dispatch, explain ... --help lists them."
