"""`manage.py dispatchers_doctor`: everything that can be known to be wrong."""

from __future__ import annotations

from dispatchers_django.management._command import Forwarding

__all__ = ["Command"]


class Command(Forwarding):
    """`dispatchers doctor` with Django set up."""

    help = "Check every dispatcher and task; with --contact, reach the backends too."
    forwarded = "doctor"
