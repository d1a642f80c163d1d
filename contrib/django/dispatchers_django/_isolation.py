"""Isolation of a Django project's tests from real queues, as from real mail."""

from __future__ import annotations

import sys

from django.conf import settings
from django.db.backends.signals import connection_created

from dispatchers.frameworks import keep_in_process, reload

__all__ = ["in_tests", "install", "overridden"]

SETTING = "DISPATCHERS_IN_TESTS"
CONFIGURED = "configured"
"""The value with which tests use the backends of the settings."""


class _Overrides:
    """Overrides of the dispatchers in force, and the last sight of tests."""

    depth = 0
    in_tests = False


def install() -> None:
    """Keep work in the process while tests run."""
    keep_in_process(_keeps)
    _Overrides.in_tests = in_tests()
    connection_created.connect(_follow)


def overridden(*, enter: bool) -> None:
    """Note that a test overrides the dispatchers, by which it says which it means."""
    _Overrides.depth = max(0, _Overrides.depth + (1 if enter else -1))


def _keeps(origin: str) -> bool | None:
    if getattr(settings, SETTING, None) == CONFIGURED:
        return False
    if _Overrides.depth and origin.startswith("settings."):
        return False
    return True if in_tests() else None


def in_tests() -> bool:
    """Return whether Django's test environment is set up, or about to be by `manage.py test`."""
    mail = sys.modules.get("django.core.mail")
    return hasattr(mail, "outbox") or sys.argv[1:2] == ["test"]


def _follow(**_: object) -> None:
    # A runner of the project's own sets the environment up after the applications: the first
    # connection, to the tests' database, is the first that is heard of it.
    if _Overrides.in_tests is not (found := in_tests()):
        _Overrides.in_tests = found
        reload()
