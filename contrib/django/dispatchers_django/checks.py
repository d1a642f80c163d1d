"""System checks: what `manage.py check`, and `check --deploy`, say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.urls import NoReverseMatch, is_valid_path, reverse

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
    """Return every problem of every dispatcher: `dispatchers.E001`, `dispatchers.W001`."""
    del app_configs
    return [_message(each, "001") for each in problems()]


def check_deployment(app_configs: Any, **_: object) -> list[CheckMessage]:
    """Return what is fine for development only: `dispatchers.E002`, `dispatchers.W002`."""
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
    # Without these, which `check_settings` says already.
    known = endpoint.check()
    found = [each for each in endpoint.check(deploy=True) if each not in known]
    return [*found, *_of_surroundings(endpoint)] if endpoint.settings.worker else found


def _of_surroundings(endpoint: Endpoint) -> Iterable[Problem]:
    """Yield the settings of Django that answer pushes before the endpoint does."""
    path = _path_of(endpoint)
    if path is None:
        yield _warning(
            "no URL leads to the endpoint: include dispatchers_django.urls (or urls_async) in "
            "ROOT_URLCONF, unless another application of this process serves it"
        )
        path = endpoint.path
    exempt = [re.compile(each) for each in settings.SECURE_REDIRECT_EXEMPT]
    redirects = settings.SECURE_SSL_REDIRECT and not settings.SECURE_PROXY_SSL_HEADER
    if redirects and not any(each.search(path.lstrip("/")) for each in exempt):
        yield _warning(
            f"SECURE_SSL_REDIRECT answers pushes to {path} with 301 where a proxy ends TLS: set "
            "SECURE_PROXY_SSL_HEADER, or name the path in SECURE_REDIRECT_EXEMPT"
        )
    if settings.PREPEND_WWW and "django.middleware.common.CommonMiddleware" in settings.MIDDLEWARE:
        yield _warning(
            f"PREPEND_WWW answers pushes to {path} with 301 where the queue's address does not "
            "begin with 'www.': let it begin so, or turn PREPEND_WWW off"
        )


def _path_of(endpoint: Endpoint) -> str | None:
    """Return the path of the view, or None where no URL leads to it."""
    try:
        return reverse("dispatchers:run")
    except NoReverseMatch:
        return endpoint.path if is_valid_path(endpoint.path) else None


def _warning(message: str) -> Problem:
    return Problem("", "", "warning", f"endpoint: {message}")


def _of_dispatchers() -> Iterable[Problem]:
    """Yield dispatchers whose work is lost with the process."""
    from ._settings import source

    try:
        found = source() or {}
    except ConfigurationError:
        # Said by `check_settings`: each problem is shown once.
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
