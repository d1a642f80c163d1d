"""System checks: what `manage.py check`, and `check --deploy`, say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.db import connections, router
from django.urls import NoReverseMatch, is_valid_path, reverse

from dispatchers import BaseDispatcher, ConfigurationError, get_dispatcher
from dispatchers.frameworks import Problem, problems
from dispatchers.http import Endpoint

from ._settings import NAME
from .outbox import DjangoStore

__all__ = ["check_deployment", "check_outboxes", "check_settings", "register"]

TAG = "dispatchers"


def register() -> None:
    """Add the checks."""
    checks.register(check_settings, TAG)
    checks.register(check_deployment, TAG, deploy=True)
    checks.register(check_outboxes, TAG, checks.Tags.database)


def check_settings(app_configs: Any, **_: object) -> list[CheckMessage]:
    """Return every problem of every dispatcher: `dispatchers.E001`, `.E005`, `.W001`."""
    del app_configs
    kept_away = [_message(each, "005") for each in _without_tables()]
    return [*(_message(each, "001") for each in problems()), *kept_away]


def check_deployment(app_configs: Any, **_: object) -> list[CheckMessage]:
    """Return what is fine for development only: `dispatchers.E002`, `dispatchers.W002`."""
    del app_configs
    return [_message(each, "002") for each in [*_of_endpoint(), *_of_dispatchers()]]


def check_outboxes(
    app_configs: Any, databases: Iterable[str] | None = None, **_: object
) -> list[CheckMessage]:
    """Return the databases whose outbox has no tables yet: `dispatchers.W005`.

    With `check --database ALIAS`, and by `migrate`, which must not be kept from making them.
    """
    del app_configs
    wanted = {place: alias for alias, place in _outboxes().items() if place in (databases or ())}
    return [_message(_not_migrated(*each), "005") for each in wanted.items() if _lacks(each[0])]


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


def _configured(backend: str | None = None) -> Iterable[tuple[str, BaseDispatcher]]:
    """Yield the dispatchers of the settings, or of one backend, that can be built, by alias."""
    from ._settings import source

    try:
        found = source() or {}
    except ConfigurationError:
        # Said by `check_settings`: each problem is shown once.
        return
    targets: Any = found.get("targets", {})
    for alias, table in next(iter(targets.values()), {}).items():
        if backend in (None, table["backend"]):
            with suppress(ConfigurationError):
                yield alias, get_dispatcher(alias)


def _outboxes() -> dict[str, str]:
    """Return the database of each outbox in one of Django's, by the dispatcher's alias."""
    found = {alias: getattr(each, "store", None) for alias, each in _configured("outbox")}
    return {alias: each.alias for alias, each in found.items() if isinstance(each, DjangoStore)}


def _without_tables() -> Iterable[Problem]:
    """Yield outboxes in databases in which no migration may make their tables."""
    from .models import OutboxRow

    for alias, place in _outboxes().items():
        if not router.allow_migrate_model(place, OutboxRow):
            yield Problem(
                alias,
                "outbox",
                "error",
                f"settings.{NAME}[{alias!r}]: store 'django:{place}' gets no tables, as a router "
                "of DATABASE_ROUTERS forbids the migrations of 'dispatchers' there: allow them, "
                "or name another database",
            )


def _lacks(place: str) -> bool:
    from .models import OutboxRow

    return OutboxRow._meta.db_table not in connections[place].introspection.table_names()


def _not_migrated(place: str, alias: str) -> Problem:
    return Problem(
        alias,
        "outbox",
        "warning",
        f"settings.{NAME}[{alias!r}]: database {place!r} has no tables for an outbox, and each "
        f"dispatch is rejected: `manage.py migrate dispatchers --database {place}` makes them",
    )


def _of_dispatchers() -> Iterable[Problem]:
    """Yield dispatchers whose work is lost with the process."""
    for alias, dispatcher in _configured():
        if not dispatcher.capabilities.durable:
            yield Problem(
                alias,
                dispatcher.name,
                "warning",
                f"settings.{NAME}[{alias!r}]: backend {dispatcher.name!r} keeps its work in this "
                "process, and loses it with it: use one that is durable, 'sqlite' for one machine",
            )
