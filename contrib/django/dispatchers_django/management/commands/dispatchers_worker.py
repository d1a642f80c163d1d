"""`manage.py dispatchers_worker [ALIAS]`: run the work of the settings' dispatchers."""

from __future__ import annotations

from dispatchers_django.management._command import Forwarding

__all__ = ["Command"]


class Command(Forwarding):
    """`dispatchers worker` with Django set up."""

    help = "Run the work of the configured dispatchers. --help lists the options."
    forwarded = "worker"
