"""One reading of the configuration, and the dispatchers that were built from it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard, cast

from ._contract import BaseDispatcher
from ._errors import ConfigurationError, ErrorCategory, RejectedError
from ._foreign import is_dispatcher as hands_over
from ._layers import DEFAULT, Layer
from ._library import cause, imported
from ._secrets import secrets_of
from ._verdict import safe_text

if TYPE_CHECKING:
    from ._config import Configuration, Settings, Specification

__all__ = ["CLOSE_WAIT", "Given", "Overriding", "Snapshot", "build", "close", "is_dispatcher"]

log = logging.getLogger("dispatchers")

BUILD_WAIT = 10.0
"""Seconds to wait for another thread that builds the same dispatcher: the two may wait for each
other's imports, and nothing here may hang."""
CLOSE_WAIT = 5.0
"""Seconds that a dispatcher has to finish what it holds once its settings are gone."""
NOTHING: Mapping[str, object] = MappingProxyType({})

on_build: list[Callable[[], None]] = []
"""Called after each dispatcher that was built from settings."""

Given = BaseDispatcher | Mapping[str, object] | str
"""A dispatcher object, a table of `backend` and options, or the name of a backend alone."""


class Overriding:
    """One `override` that is in force: its layer, and the dispatchers it gives by alias."""

    def __init__(self, layer: Layer, dispatchers: Mapping[str, Given]) -> None:
        self.layer = layer
        self.dispatchers = dispatchers


def is_dispatcher(value: object) -> TypeGuard[BaseDispatcher]:
    """Whether a value hands requests over; what is no `BaseDispatcher` is taken as one."""
    return hands_over(value)


class Snapshot:
    """One reading of the configuration, and the dispatchers that were built from it."""

    def __init__(self, above: tuple[Overriding, ...], explicit: Layer) -> None:
        self.above = above
        self.explicit = explicit
        self.given: dict[str, Given] = {}
        for overriding in above:
            self.given.update(overriding.dispatchers)
        self.objects = {k: v for k, v in self.given.items() if is_dispatcher(v)}
        self.instances: dict[str, BaseDispatcher] = dict(self.objects)
        self.built: dict[str, tuple[Specification, BaseDispatcher]] = {}
        self.fallbacks: set[str] = set()
        self.retired = False
        self._read: dict[str, Configuration] = {}
        self._tasks: dict[str, Mapping[str, object]] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._building: set[tuple[int, str]] = set()

    @property
    def exit_timeout(self) -> float:
        """Seconds that all dispatchers together have at exit; reads nothing that was not read."""
        known = self._read.get("")
        return known.settings.exit_timeout if known else CLOSE_WAIT

    def fresh(self) -> Snapshot:
        """The same reading, with nothing built yet."""
        other = Snapshot(self.above, self.explicit)
        other._read = dict(self._read)
        other.fallbacks = set(self.fallbacks)
        return other

    @property
    def configuration(self) -> Configuration:
        """What all sources say, read once; no lock, for a framework's settings are code."""
        found = self._read.get("")
        if found is None:
            from ._config import read  # models, which `import dispatchers` need not build

            layers = [overriding.layer for overriding in reversed(self.above)]
            found = self._read.setdefault("", read(layers, self.explicit))
        return found

    def aliases(self) -> set[str]:
        """The aliases there are; what was given by `override` needs no selected target."""
        try:
            return {*self.given, *self.configuration.dispatchers()}
        except ConfigurationError:
            if not self.given:
                raise
            return set(self.given)

    def known(self, alias: str) -> str:
        """The alias itself if it is configured, else `default`, which is remembered."""
        if alias == DEFAULT or alias in self.instances or alias in self.aliases():
            return alias
        self.fallbacks.add(alias)
        return DEFAULT

    def dispatcher(self, alias: str) -> BaseDispatcher:
        """The dispatcher of that alias, built if need be."""
        found = self.instances.get(alias)
        if found is not None:
            return found
        specification = self.specification(alias)
        _import_hooks(self.configuration.settings)
        if alias not in self.given:
            _say_nothing_is_configured(self.configuration)
        with self._alone(alias):
            found = self.instances.get(alias)
            return self._built(specification) if found is None else found

    def specification(self, alias: str) -> Specification:
        """How the dispatcher of that alias is built."""
        if alias not in self.given:
            return self.configuration.specification(alias)
        given = self.given[alias]
        raw = {"backend": given} if isinstance(given, str) else cast("dict[str, object]", given)
        return self.configuration.specified(alias, raw, (), "override()")

    def _built(self, specification: Specification) -> BaseDispatcher:
        found = build(specification)
        for listener in on_build:
            listener()
        self.built[specification.alias] = specification, found
        self.instances[specification.alias] = found
        if self.retired:
            close([found], CLOSE_WAIT)
        return found

    @contextmanager
    def _alone(self, alias: str) -> Generator[None]:
        """Only one thread builds the dispatcher of an alias; the others wait, but not for ever."""
        me = threading.get_ident(), alias
        if me in self._building:
            raise ConfigurationError(
                f"dispatcher {alias!r} is being built by this very thread: "
                "its constructor, or a signal handler, asked for it"
            )
        lock = self._locks.setdefault(alias, threading.RLock())
        if not lock.acquire(timeout=BUILD_WAIT):
            raise RejectedError(
                ErrorCategory.TIMEOUT,
                f"dispatcher {alias!r} is still being built by another thread",
            )
        self._building.add(me)
        try:
            yield
        finally:
            self._building.discard(me)
            lock.release()

    def adopt(self, old: Snapshot) -> None:
        """Go on with those of another snapshot's dispatchers whose settings are the same."""
        for alias, (before, dispatcher) in list(old.built.items()):
            if alias not in self.instances and self._goes_on(alias, before):
                self.built[alias] = before, dispatcher
                self.instances[alias] = dispatcher

    def _goes_on(self, alias: str, before: Specification) -> bool:
        try:
            return self.specification(alias).same_as(before)
        except Exception:  # noqa: BLE001 - what is wrong is said when somebody asks for it
            return False

    def task(self, name: str) -> Mapping[str, object]:
        """What the host says about a task, by keyword."""
        found = self._tasks.get(name)
        if found is None:
            own = self.configuration.settings.tasks.get(name)
            found = NOTHING if own is None else _said(own.__dict__)
            self._tasks[name] = found
        return found


def _said(values: Mapping[str, object]) -> Mapping[str, object]:
    return MappingProxyType({key: value for key, value in values.items() if value is not None})


def build(specification: Specification) -> BaseDispatcher:
    """A dispatcher as configured.

    Raises:
        ConfigurationError: Its constructor raised.
    """
    try:
        return specification.cls(specification.options, alias=specification.alias)
    except ConfigurationError:
        raise
    except Exception as exc:
        text = safe_text(exc, secrets_of(specification.options))
        raise ConfigurationError(
            f"dispatcher {specification.alias!r} ({specification.cls.name}) cannot be built: "
            f"{type(exc).__name__}: {text}"
        ) from exc


def _import_hooks(settings: Settings) -> None:
    for module in settings.hooks:
        try:
            imported(module)
        except Exception as exc:
            raise ConfigurationError(f"hooks: importing {module!r} raised {cause(exc)}") from exc


_said_once: set[str] = set()


def _say_nothing_is_configured(configuration: Configuration) -> None:
    if not configuration.settings.targets and "unconfigured" not in _said_once:
        _said_once.add("unconfigured")
        log.warning(
            "no dispatchers are configured: tasks run inline, in the process that dispatches them; "
            "write a dispatchers.toml or call dispatchers.configure(...)"
        )


def close(dispatchers: Iterable[BaseDispatcher], timeout: float) -> int:
    """Close dispatchers within one timeout; how many pieces of accepted work were left."""
    until = monotonic() + timeout
    return sum(_closed(each, max(0.0, until - monotonic())) for each in dispatchers)


def _closed(dispatcher: BaseDispatcher, timeout: float) -> int:
    try:
        left = dispatcher.close(timeout)
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        log.error("closing %r (%s) raised %s", dispatcher.alias, dispatcher.name, cause(exc))  # noqa: TRY400 - the type says enough
        return 0
    if left:
        log.error("%r (%s) was closed with %d undone", dispatcher.alias, dispatcher.name, left)
    return left
