"""Tables that the settings need, and the databases that they are needed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from dispatchers import BaseDispatcher, ConfigurationError, get_dispatcher

from ._settings import NAME, source
from .outbox import DjangoStore

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["Needed", "configured", "needed"]


class Needed(NamedTuple):
    """A table that something in the settings needs."""

    place: str
    """The setting."""
    database: str
    """The alias in `settings.DATABASES`."""
    model: type[Model]
    use: str
    """What it is for."""
    without: str
    """What happens while it is missing."""

    def is_kept_away(self) -> bool:
        """Tell whether no migration may ever make it."""
        return not router.allow_migrate_model(self.database, self.model)

    def is_missing(self) -> bool:
        """Tell whether it is not in its database, which is asked."""
        names = connections[self.database].introspection.table_names()
        return self.model._meta.db_table not in names


def needed() -> Iterator[Needed]:
    """Yield the tables of outboxes, and of results of `django.tasks`."""
    from .models import OutboxRow, TaskResult  # importable once the applications are loaded

    for alias, dispatcher in configured("outbox"):
        store = getattr(dispatcher, "store", None)
        if isinstance(store, DjangoStore):
            place = f"settings.{NAME}[{alias!r}]"
            without = "each dispatch is rejected"
            yield Needed(place, store.alias, OutboxRow, "an outbox", without)
    for alias in _keeping_results():
        # As `_task_results.database` has it, which needs `django.tasks`.
        database = router.db_for_write(TaskResult)
        place, without = f"settings.TASKS[{alias!r}]", "`enqueue` raises the database's error"
        yield Needed(place, database, TaskResult, "results of tasks", without)


def _keeping_results() -> Iterable[str]:
    """Yield the backends of `settings.TASKS` that keep results here."""
    if not getattr(settings, "TASKS", None):
        return
    try:
        from ._task_api import task_backends
    except ConfigurationError:  # said by what uses it
        return
    for alias in task_backends:
        with suppress(ImproperlyConfigured):  # said by the check of `django.tasks`
            backend = task_backends[alias]
            ours = getattr(backend, "hands_to_dispatcher", False)
            if ours and backend.supports_get_result:
                yield alias


def configured(backend: str | None = None) -> Iterable[tuple[str, BaseDispatcher]]:
    """Yield the dispatchers of the settings, or of one backend, that can be built, by alias."""
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
