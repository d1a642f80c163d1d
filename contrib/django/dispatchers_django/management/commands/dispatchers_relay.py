"""`manage.py dispatchers_relay [ALIAS]`: hand over what the dispatchers hold in stores."""

from __future__ import annotations

from dispatchers_django.management._command import Forwarding

__all__ = ["Command"]


class Command(Forwarding):
    """`dispatchers relay` with Django set up."""

    help = "Hand over what the configured dispatchers hold in stores. --help lists the options."
    forwarded = "relay"
