"""System checks: what `manage.py check`, and `check --deploy`, say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from dispatchers import ConfigurationError, get_dispatcher
from dispatchers.frameworks import Problem, problems
from dispatchers.http import Endpoint

from ._settings import NAME

__all__ = ["check_deployment", "check_settings", "register"]

TAG = "dispatchers"


def register() -> None:
    """Add the checks."""
    checks.register(check_settings, TAG)
    checks.register(check_deployment, TAG, deploy=True)


def check_settings(app_configs: Any, **_: object) -> list[CheckMessage]:
    """Every problem of every dispatcher: `dispatchers.E001`, `dispatchers.W001`."""
    del app_configs
    return [_message(each, "001") for each in problems()]


def check_deployment(app_configs: Any, **_: object) -> list[CheckMessage]:
    """What is fine for development only: `dispatchers.E002`, `dispatchers.W002`."""
    del app_configs
    return [_message(each, "002") for each in [*_of_endpoint(), *_of_dispatchers()]]


def _message(problem: Problem, number: str) -> CheckMessage:
    kind, letter = (checks.Error, "E") if problem.severity == "error" else (checks.Warning, "W")
    return kind(problem.message, id=f"dispatchers.{letter}{number}")


def _of_endpoint() -> Iterable[Problem]:
    try:
        endpoint = Endpoint()
    except ConfigurationError:  # which the other check says
        return []
    known = endpoint.check()
    return [each for each in endpoint.check(deploy=True) if each not in known]


def _of_dispatchers() -> Iterable[Problem]:
    """Work that is lost with the process: what was accepted, and what a request has to wait for."""
    from ._settings import source

    try:
        found = source() or {}
    except ConfigurationError:
        return
    targets: Any = found.get("targets", {})
    for alias in next(iter(targets.values()), {}):
        try:
            dispatcher = get_dispatcher(alias)
        except ConfigurationError:
            continue
        if not dispatcher.capabilities.durable:
            yield Problem(
                alias,
                dispatcher.name,
                "warning",
                f"settings.{NAME}[{alias!r}]: backend {dispatcher.name!r} keeps its work in this "
                "process, and loses it with it: use one that is durable, 'sqlite' for one machine",
            )
