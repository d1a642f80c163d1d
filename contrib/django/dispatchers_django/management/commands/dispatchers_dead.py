"""`manage.py dispatchers_dead`: list, show and replay dead letters."""

from __future__ import annotations

from dispatchers_django.management._command import Forwarding

__all__ = ["Command"]


class Command(Forwarding):
    """`dispatchers dead` with Django set up."""

    help = "List, show, replay and delete dead letters. --help lists the actions."
    forwarded = "dead"
