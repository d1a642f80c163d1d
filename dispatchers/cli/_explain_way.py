"""The way of a task through dispatchers that stand on others, for `dispatchers explain`."""

from __future__ import annotations

from dispatchers._config.api import resolve
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._models.base import Model
from dispatchers._models.paths import paths_in

__all__ = ["Stop", "drawn", "places", "way_of"]


class Stop(Model):
    """A dispatcher on the way of a task, and those that it hands over to."""

    dispatcher: str
    """Its alias."""
    backend: str
    """The backend's name."""
    file: str | None = None
    """The file that it keeps work in."""
    then: tuple[Stop, ...] = ()
    """The dispatchers that it hands over to, in order."""


def way_of(dispatcher: BaseDispatcher) -> Stop:
    """Return the way from a dispatcher on; nothing is contacted.

    Raises:
        ConfigurationError: One that it hands over to cannot be built.
    """
    then = (resolve(alias) for alias in dispatcher.stands_on(dispatcher.options))
    return Stop(
        dispatcher=dispatcher.alias,
        backend=dispatcher.name,
        file=paths_in(dispatcher.options).get("path"),
        then=tuple(map(way_of, then)),
    )


def drawn(stop: Stop) -> str:
    """Return the way in one line: `default (failover): broker (rq), else backup (celery)`."""
    name = f"{stop.dispatcher} ({stop.backend})"
    if not stop.then:
        return name
    first, *others = [_within(each) for each in stop.then]
    if stop.backend == "spill":
        return f"{name}: {first}, else the file {stop.file} until that takes it"
    if stop.backend == "outbox":
        return f"{name}: a row beside the data, then {first}"
    return f"{name}: {', else '.join([first, *others])}"


def _within(stop: Stop) -> str:
    return f"[{drawn(stop)}]" if stop.then else drawn(stop)


def places(stop: Stop) -> tuple[str, ...]:
    """Return the aliases of the dispatchers after the first, each once, as they are tried."""
    found: dict[str, None] = {}
    for each in stop.then:
        found |= dict.fromkeys((each.dispatcher, *places(each)))
    return tuple(found)
