"""System checks: what `manage.py check`, and `check --deploy`, say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.urls import NoReverseMatch, is_valid_path, reverse

from dispatchers import ConfigurationError
from dispatchers.frameworks import Problem, misspelt_overrides, problems
from dispatchers.http import Endpoint

from ._settings import NAME, SETUP
from ._tables import Needed, configured, needed

__all__ = ["check_deployment", "check_settings", "check_tables", "register"]

TAG = "dispatchers"


def register() -> None:
    """Add the checks."""
    checks.register(check_settings, TAG)
    checks.register(check_deployment, TAG, deploy=True)
    checks.register(check_tables, TAG, checks.Tags.database)


def check_settings(app_configs: Any, **_: object) -> list[CheckMessage]:
    """Return every problem of the settings: `dispatchers.E001`, `.E005`, `.W001`, `.W006`."""
    del app_configs
    told = [_message(each, "001") for each in problems()]
    kept_away = [_kept_away(each) for each in needed() if each.is_kept_away()]
    return [*told, *kept_away, *(_message(each, "006") for each in _misspelt())]


def check_deployment(app_configs: Any, **_: object) -> list[CheckMessage]:
    """Return what is fine for development only: `dispatchers.E002`, `dispatchers.W002`."""
    del app_configs
    return [_message(each, "002") for each in [*_of_endpoint(), *_of_dispatchers()]]


def check_tables(
    app_configs: Any, databases: Iterable[str] | None = None, **_: object
) -> list[CheckMessage]:
    """Return the databases that lack a table: `dispatchers.W005`.

    With `check --database ALIAS`, and by `migrate`, which must not be kept from making them.
    """
    del app_configs
    # Each once, whatever number of settings need it.
    wanted = {(each.database, each.model): each for each in needed()}
    asked = [each for each in wanted.values() if each.database in (databases or ())]
    return [_not_migrated(each) for each in asked if each.is_missing()]


def _kept_away(table: Needed) -> CheckMessage:
    words = (
        f"{table.place}: database {table.database!r} gets no table for {table.use}, as a router of "
        "DATABASE_ROUTERS forbids the migrations of 'dispatchers' there: allow them, or choose "
        "another database"
    )
    return checks.Error(words, id="dispatchers.E005")


def _not_migrated(table: Needed) -> CheckMessage:
    words = (
        f"{table.place}: database {table.database!r} has no table for {table.use}, and "
        f"{table.without}: `manage.py migrate dispatchers --database {table.database}` makes it"
    )
    return checks.Warning(words, id="dispatchers.W005")


def _misspelt() -> Iterable[Problem]:
    # What a worker imports first is done here already, and counts as imported only then.
    import_module(SETUP)
    try:
        return misspelt_overrides()
    except ConfigurationError:  # said by `problems`
        return []


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
    for alias, dispatcher in configured():
        if not dispatcher.capabilities.durable:
            yield Problem(
                alias,
                dispatcher.name,
                "warning",
                f"settings.{NAME}[{alias!r}]: backend {dispatcher.name!r} keeps its work in this "
                "process, and loses it with it: use one that is durable, 'sqlite' for one machine",
            )
