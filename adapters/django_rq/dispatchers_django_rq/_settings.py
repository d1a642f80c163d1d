"""`RQ_QUEUES` and `RQ` of Django's settings, as options of `rq`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatchers_rq import RQOptions
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from redis import Redis
from rq.serializers import DefaultSerializer, JSONSerializer

from dispatchers import ConfigurationError

from ._options import DjangoRQOptions

Tables = Mapping[str, Mapping[str, Any]]
OF_JOBS = ("DEFAULT_TIMEOUT", "DEFAULT_RESULT_TTL", "QUEUE_CLASS")
"""Keys of a queue's table that do not say which Redis it is in, or in which format."""
FORMATS = {
    "pickle": (None, DefaultSerializer, "pickle", "rq.serializers.DefaultSerializer"),
    "json": (JSONSerializer, "json", "rq.serializers.JSONSerializer"),
}
"""Formats of `rq`, and how `SERIALIZER` names them."""
AT_ONCE = (
    "settings.RQ has {key} = {value!r}, which holds back what is enqueued by django-rq: this "
    "dispatcher hands over at once, and `dispatchers_django.OnCommit` after the commit"
)


def rq_options(given: DjangoRQOptions, alias: str) -> RQOptions:
    """Return the options of `rq` for a dispatcher of these.

    Raises:
        ConfigurationError: The queues are not in `RQ_QUEUES`, or not in one Redis at one address.
    """
    name = given.queue or "default"
    tables = queue_tables()
    beside = _alike(name, tables)
    if away := sorted({*given.queues} - {*beside}):
        raise ConfigurationError(
            f"dispatcher {alias!r}: settings.RQ_QUEUES has no queue {away[0]!r} in the Redis and "
            f"format of {name!r}: it has {', '.join(beside)}; another dispatcher may serve it"
        )
    values: dict[str, Any] = {
        **given.__dict__,
        "queue": name,
        "queues": given.queues or beside,
        "connection": _connection(name, tables[name]),
        "serializer": _serializer(name, tables[name]),
        "is_async": tables[name].get("ASYNC", True),
    }
    return RQOptions(**values)


def queue_tables() -> Tables:
    """Return `RQ_QUEUES`.

    Raises:
        ConfigurationError: There are no settings, or they have no queues.
    """
    try:
        tables: Tables | None = getattr(settings, "RQ_QUEUES", None)
    except ImproperlyConfigured as exc:
        raise ConfigurationError(
            "backend 'django_rq' needs Django's settings: set DJANGO_SETTINGS_MODULE, or run "
            "`manage.py dispatchers`"
        ) from exc
    if not tables:
        raise ConfigurationError(
            "settings.RQ_QUEUES is missing: backend 'django_rq' takes its queues from there"
        )
    return tables


def _alike(name: str, tables: Tables) -> tuple[str, ...]:
    """Return the queues in the same Redis and format as one of them, itself included.

    Raises:
        ConfigurationError: There is no such queue.
    """
    if name not in tables:
        raise ConfigurationError(
            f"settings.RQ_QUEUES has no queue {name!r}: it has {', '.join(sorted(tables))}"
        )
    return tuple(sorted(each for each in tables if _place(tables[each]) == _place(tables[name])))


def default_timeout(queue: str) -> float | None:
    """Return the seconds that jobs of django-rq's own may run for, where `RQ_QUEUES` says so."""
    found: float | None = queue_tables()[queue].get("DEFAULT_TIMEOUT")
    return found


def held_back() -> list[str]:
    """Return a warning where django-rq is told to enqueue later than it is called (C7)."""
    chosen: Mapping[str, Any] = getattr(settings, "RQ", None) or {}
    later = {"COMMIT_MODE": ("on_db_commit", "request_finished"), "AUTOCOMMIT": (False,)}
    found = ((key, chosen.get(key)) for key in later if chosen.get(key) in later[key])
    return [AT_ONCE.format(key=key, value=value) for key, value in found]


def _place(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in OF_JOBS}


def _connection(name: str, table: Mapping[str, Any]) -> Redis:
    if "SENTINELS" in table:
        raise ConfigurationError(
            f"settings.RQ_QUEUES[{name!r}] has SENTINELS: this backend takes one Redis at one "
            "address"
        )
    try:
        # Late: it cannot be imported without settings, as where backends are only listed.
        from django_rq import get_connection

        return get_connection(name)
    except Exception as exc:
        raise ConfigurationError(
            f"settings.RQ_QUEUES[{name!r}]: django-rq makes no connection of it: "
            f"{type(exc).__name__}"
        ) from exc


def _serializer(name: str, table: Mapping[str, Any]) -> str:
    """Return the format of a queue; without one it is what `rqworker` reads.

    Raises:
        ConfigurationError: It is one of the application's own.
    """
    given = table.get("SERIALIZER")
    for found, spellings in FORMATS.items():
        if given in spellings:
            return found
    raise ConfigurationError(
        f"settings.RQ_QUEUES[{name!r}] has SERIALIZER = {given!r}: this backend writes for RQ's "
        "own JSONSerializer and DefaultSerializer; use another queue for tasks"
    )
