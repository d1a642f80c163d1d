"""One reading of the configuration, and the dispatchers built from it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard, cast

from dispatchers._config.isolation import isolated
from dispatchers._config.layers import DEFAULT, Layer
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.duck_typed import is_dispatcher as hands_over
from dispatchers._dispatch.error_mapping import safe_text
from dispatchers._errors import ConfigurationError, ErrorCategory, RejectedError
from dispatchers._models.redaction import secrets_of, without_secrets
from dispatchers._runtime.importing import cause, imported
from dispatchers._runtime.log import say

if TYPE_CHECKING:
    from dispatchers._config.settings import Configuration, Settings, Specification

__all__ = ["CLOSE_WAIT", "Given", "Snapshot", "build", "close", "is_dispatcher"]

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


def is_dispatcher(value: object) -> TypeGuard[BaseDispatcher]:
    """Tell whether a value dispatches; any object that does is taken."""
    return hands_over(value)


siblings: ContextVar[Callable[[str], BaseDispatcher] | None] = ContextVar(
    "dispatchers_siblings", default=None
)
"""Finds the dispatchers beside the one that is being built, by alias."""


@contextmanager
def among(find: Callable[[str], BaseDispatcher]) -> Generator[None]:
    """Have what is built in this block find the dispatchers that it stands on with `find`."""
    token = siblings.set(find)
    try:
        yield
    finally:
        siblings.reset(token)


class Snapshot:
    """One reading of the configuration, and the dispatchers built from it."""

    def __init__(self, above: tuple[Layer, ...], explicit: Layer) -> None:
        self.above = above
        self.explicit = explicit
        self.given: dict[str, Given] = {}
        for layer in above:
            self.given.update(cast("Mapping[str, Given]", layer.dispatchers))
        # Objects given by the caller are used as they are, and never closed here.
        self.objects = {k: v for k, v in self.given.items() if is_dispatcher(v)}
        self.instances: dict[str, BaseDispatcher] = dict(self.objects)
        self.built: dict[str, tuple[Specification, BaseDispatcher]] = {}
        self.fallbacks: set[str] = set()
        self.retired = False
        self._read: dict[str, Configuration] = {}
        self._tasks: dict[str, Mapping[str, object]] = {}
        self._locks: dict[str, threading.RLock] = {}
        # By thread: the lock is re-entrant, and would let a constructor ask for its own dispatcher.
        self._building: set[tuple[int, str]] = set()

    @property
    def exit_timeout(self) -> float:
        """Return the seconds for closing at exit, without reading anything anew."""
        known = self._read.get("")
        return known.settings.exit_timeout if known else CLOSE_WAIT

    def fresh(self) -> Snapshot:
        """Return the same reading, with nothing built yet."""
        other = Snapshot(self.above, self.explicit)
        # The reading survives a fork: files may have changed, and parent and child must agree.
        other._read = dict(self._read)
        other.fallbacks = set(self.fallbacks)
        return other

    @property
    def configuration(self) -> Configuration:
        """Return the configuration, read once; without a lock, as it may run code."""
        found = self._read.get("")
        if found is None:
            from dispatchers._config.settings import (
                read,  # models, which `import dispatchers` need not build
            )

            found = self._read.setdefault("", read(self.above[::-1], self.explicit))
        return found

    def aliases(self) -> set[str]:
        """Return all aliases; those of `override` need no selected target."""
        try:
            return {*self.given, *self.configuration.dispatchers()}
        except ConfigurationError:
            if not self.given:
                raise
            return set(self.given)

    def known(self, alias: str) -> str:
        """Return the alias if it is configured, else `default`, and remember it."""
        # The cheap answers first: `aliases` reads the configuration.
        if alias == DEFAULT or alias in self.instances or alias in self.aliases():
            return alias
        self.fallbacks.add(alias)
        return DEFAULT

    def dispatcher(self, alias: str) -> BaseDispatcher:
        """Return the dispatcher of an alias, built if need be."""
        # Without a lock: this is on the path of every dispatch.
        found = self.instances.get(alias)
        if found is not None:
            return found
        specification = self.specification(alias)
        _import_hooks(self.configuration.settings)
        if alias not in self.given:
            _say_nothing_is_configured(self.configuration)
        with self._alone(alias):
            # Again under the lock: another thread may have built it while this one waited.
            found = self.instances.get(alias)
            return self._built(specification) if found is None else found

    def specification(self, alias: str) -> Specification:
        """Return the specification of an alias."""
        if alias not in self.given:
            return isolated(self.configuration, self.configuration.specification(alias))
        given = self.given[alias]
        raw = {"backend": given} if isinstance(given, str) else cast("dict[str, object]", given)
        return self.configuration.specified(alias, raw, (), "override()")

    def _built(self, specification: Specification) -> BaseDispatcher:
        with among(self.dispatcher):
            found = build(specification)
        for listener in on_build:
            listener()
        self.built[specification.alias] = specification, found
        self.instances[specification.alias] = found
        # The configuration changed while it was being built: no other code would ever close it.
        if self.retired:
            close([found], CLOSE_WAIT)
        return found

    @contextmanager
    def _alone(self, alias: str) -> Generator[None]:
        """Let one thread build an alias; others wait for a limited time."""
        me = threading.get_ident(), alias
        if me in self._building:
            if circle := self._circle(alias):
                raise ConfigurationError(f"dispatchers stand on each other in a circle: {circle}")
            raise ConfigurationError(
                f"dispatcher {alias!r} is being built by this very thread: "
                "its constructor, or a signal handler, asked for it"
            )
        # One lock for each alias: a backend that is slow to import holds up no other.
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

    def _circle(self, alias: str) -> str:
        """Return the way from a dispatcher over what it stands on back to it; empty without one."""
        ways: list[tuple[str, ...]] = [(alias,)]
        seen = {alias}
        while ways:
            way = ways.pop()
            for each in self._under(way[-1]):
                if each == alias:
                    return " -> ".join((*way, alias))
                if each not in seen:
                    seen.add(each)
                    ways.append((*way, each))
        return ""

    def _under(self, alias: str) -> tuple[str, ...]:
        if alias in self.objects or alias not in self.aliases():
            return ()
        found = self.specification(alias)
        return found.cls.stands_on(found.options)

    def adopt(self, old: Snapshot) -> None:
        """Take over another snapshot's dispatchers whose settings are the same.

        One that was closed meanwhile would refuse everything: it is built anew.
        """
        # A copy: other threads go on building from the old snapshot.
        for alias, (before, dispatcher) in list(old.built.items()):
            if alias not in self.instances and self._goes_on(alias, before, old):
                self.built[alias] = before, dispatcher
                self.instances[alias] = dispatcher

    def _goes_on(self, alias: str, before: Specification, old: Snapshot) -> bool:
        try:
            closed = getattr(old.instances[alias], "_closed", False)
            same = not closed and self.specification(alias).same_as(before)
            # One that stands on others is built anew with any of them.
            return same and all(
                self._keeps(each, old) for each in before.cls.stands_on(before.options)
            )
        except Exception:  # noqa: BLE001 - its first use will raise the error
            return False

    def _keeps(self, alias: str, old: Snapshot) -> bool:
        """Tell whether an alias is, or will be, the very dispatcher that it was."""
        if alias in self.instances:
            return self.instances[alias] is old.instances.get(alias)
        before = old.built.get(alias)
        return before is not None and self._goes_on(alias, before[0], old)

    def task(self, name: str) -> Mapping[str, object]:
        """Return the host's overrides of a task, by keyword."""
        found = self._tasks.get(name)
        if found is None:
            own = self.configuration.settings.tasks.get(name)
            found = NOTHING if own is None else _said(own.__dict__)
            self._tasks[name] = found
        return found


def _said(values: Mapping[str, object]) -> Mapping[str, object]:
    return MappingProxyType({key: value for key, value in values.items() if value is not None})


def build(specification: Specification) -> BaseDispatcher:
    """Build a dispatcher as specified.

    Raises:
        ConfigurationError: Its constructor raised.
    """
    secrets = secrets_of(specification.options)
    try:
        return specification.cls(specification.options, alias=specification.alias)
    except ConfigurationError as exc:
        text = without_secrets(str(exc), secrets)
        if text == str(exc):
            raise
        # The same class, as callers tell a missing library from other errors by it.
        raise type(exc)(text) from None
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        error = ConfigurationError(
            f"dispatcher {specification.alias!r} ({specification.cls.name}) cannot be built: "
            f"{type(exc).__name__}: {safe_text(exc, secrets)}"
        )
        # A traceback shows the cause with its own words: not where these have a secret in them.
        raise error from (None if _quotes(exc, secrets) else exc)


def _quotes(exc: Exception, secrets: tuple[str, ...]) -> bool:
    words = safe_text(exc, ())
    return without_secrets(words, secrets) != words


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
        say(
            logging.WARNING,
            "no dispatchers are configured: tasks run inline, in the process that dispatches them; "
            "write a dispatchers.toml or call dispatchers.configure(...)",
        )


def close(dispatchers: Iterable[BaseDispatcher], timeout: float) -> int:
    """Close dispatchers within one timeout; return how much work was left."""
    until = monotonic() + timeout
    return sum(_closed(each, max(0.0, until - monotonic())) for each in dispatchers)


def _who(dispatcher: BaseDispatcher) -> tuple[str, str]:
    return dispatcher.alias, dispatcher.name


def without_its_secrets(dispatcher: BaseDispatcher, text: str) -> str:
    """Strike out the secrets of a dispatcher."""
    return without_secrets(text, getattr(dispatcher, "_secrets", None) or ())


def _closed(dispatcher: BaseDispatcher, timeout: float) -> int:
    try:
        left = dispatcher.close(timeout)
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        say(
            logging.ERROR,
            "closing %r (%s) raised %s",
            *_who(dispatcher),
            without_its_secrets(dispatcher, cause(exc)),
        )
        return 0
    if left:
        say(logging.ERROR, "%r (%s) was closed with %d undone", *_who(dispatcher), left)
    return left
