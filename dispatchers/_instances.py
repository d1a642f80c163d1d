"""The dispatchers of this process: one per alias and settings, built on first use.

`state` holds the current snapshot: one reading of the configuration and what was built from it.
Whatever changes the configuration puts another snapshot in its place and raises
`state.generation`, which is all that a task reads before it uses what it resolved last time.
"""

from __future__ import annotations

import atexit
import importlib
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from functools import wraps
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Self, TypeGuard, TypeVar, cast

from . import _registry
from ._backend_check import FINAL
from ._check import check, problems, raise_all
from ._config import DEFAULT, Configuration, Settings, Specification, read
from ._contract import BaseDispatcher
from ._errors import ConfigurationError, ErrorCategory, RejectedError
from ._fork import renew_after_fork
from ._library import cause
from ._settings_schema import settings_schema
from ._sources import Layer, code_layer
from ._verdict import safe_text, secrets_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = [
    "check",
    "close_all",
    "configure",
    "current",
    "fallbacks",
    "get_dispatcher",
    "override",
    "problems",
    "reload",
    "resolve",
    "settings_of_task",
    "settings_schema",
    "state",
]

log = logging.getLogger("dispatchers")

BUILD_WAIT = 10.0
"""Seconds to wait for another thread that builds the same dispatcher: the two may wait for each
other's imports, and nothing here may hang."""
CLOSE_WAIT = 5.0
"""Seconds that a dispatcher has to finish what it holds once its settings are gone."""
NOTHING: Mapping[str, object] = MappingProxyType({})

P = ParamSpec("P")
T = TypeVar("T")
Given = BaseDispatcher | Mapping[str, object] | str
"""A dispatcher object, a table of `backend` and options, or the name of a backend alone."""


def is_dispatcher(value: object) -> TypeGuard[BaseDispatcher]:
    """Whether a value hands requests over; what is no `BaseDispatcher` is taken as one."""
    return not isinstance(value, type) and all(callable(getattr(value, m, None)) for m in FINAL)


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
        _say_nothing_is_configured(self.configuration)
        with self._alone(alias):
            return self.instances.get(alias) or self._built(specification)

    def specification(self, alias: str) -> Specification:
        """How the dispatcher of that alias is built."""
        if alias not in self.given:
            return self.configuration.specification(alias)
        given = self.given[alias]
        raw = {"backend": given} if isinstance(given, str) else cast("dict[str, object]", given)
        return self.configuration.specified(alias, raw, (), "override()")

    def _built(self, specification: Specification) -> BaseDispatcher:
        found = build(specification)
        _drain_with_multiprocessing()
        self.built[specification.alias] = specification, found
        self.instances[specification.alias] = found
        if self.retired:
            _close([found], CLOSE_WAIT)
        return found

    @contextmanager
    def _alone(self, alias: str) -> Iterator[None]:
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


_imported_hooks: set[str] = set()


def _import_hooks(settings: Settings) -> None:
    for module in settings.hooks:
        if module not in _imported_hooks:
            _imported_hooks.add(module)
            try:
                importlib.import_module(module)
            except Exception as exc:
                _imported_hooks.discard(module)
                raise ConfigurationError(
                    f"hooks: importing {module!r} raised {cause(exc)}"
                ) from exc


class View(NamedTuple):
    """What is in force: overrides, explicit settings, and a snapshot for each way back."""

    stack: tuple[Overriding, ...]
    explicit: Layer
    snapshots: dict[tuple[Overriding, ...], Snapshot]

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the overrides in force."""
        return self.snapshots[self.stack]

    def changed(self, stack: tuple[Overriding, ...], explicit: Layer, *, anew: bool) -> View:
        """The view after a change; with `anew` all sources are read again."""
        kept = {} if anew else {k: s for k, s in self.snapshots.items() if set(k) <= set(stack)}
        for key in ((), stack):
            if key not in kept:
                kept[key] = Snapshot(key, explicit)
                for before in (self.snapshot, *self.snapshots.values()):
                    kept[key].adopt(before)
        return View(stack, explicit, kept)

    def emptied(self) -> View:
        """The same, with nothing built yet."""
        fresh = {stack: snapshot.fresh() for stack, snapshot in self.snapshots.items()}
        return self._replace(snapshots=fresh)

    def built(self) -> dict[int, BaseDispatcher]:
        """Every dispatcher that was built from settings, by its `id`."""
        snapshots = self.snapshots.values()
        return {id(d): d for each in snapshots for _, d in list(each.built.values())}


class State:
    """What is current in this process.

    Reading the configuration runs code of others (imports, a framework's settings), so no lock
    is held meanwhile: a change is computed from a view, and computed again if another was faster.
    """

    def __init__(self) -> None:
        self.generation = 0
        """Rises whenever what was resolved before may no longer hold."""
        self.view = View((), Layer({}), {(): Snapshot((), Layer({}))})
        self.snapshot = self.view.snapshot
        self.inherited: list[View] = []
        self._lock = threading.RLock()
        renew_after_fork(self)

    def change(
        self,
        compute: Callable[[View], View],
        validate: Callable[[Snapshot], None] = lambda _: None,
        timeout: float = CLOSE_WAIT,
    ) -> int:
        """Put another view in place, and close what only the one before had built.

        Returns:
            How many pieces of accepted work those left undone.
        """
        while True:
            before = self.view
            after = compute(before)
            validate(after.snapshot)
            if self._swapped(before, after):
                break
        for key, snapshot in before.snapshots.items():
            snapshot.retired = snapshot is not after.snapshots.get(key)
        held = after.built()
        gone = [each for key, each in before.built().items() if key not in held]
        return _close(gone, timeout)

    def _swapped(self, before: View, after: View) -> bool:
        with self._lock:
            if self.view is not before:
                return False
            self.view = after
            self.snapshot = after.snapshot
            self.generation += 1
            return True

    def _after_fork(self) -> None:
        """Begin with dispatchers of our own; the parent's are kept, unused and not closed."""
        self.inherited.append(self.view)
        self._lock = threading.RLock()
        self.view = self.view.emptied()
        self.snapshot = self.view.snapshot
        self.generation += 1
        atexit.unregister(_close_at_exit)
        atexit.register(_close_at_exit)


def _close(dispatchers: Iterable[BaseDispatcher], timeout: float) -> int:
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


class Overriding:
    """One `override` that is in force: its layer, and the dispatchers it gives by alias."""

    def __init__(self, layer: Layer, dispatchers: Mapping[str, Given]) -> None:
        self.layer = layer
        self.dispatchers = dispatchers


state = State()


def get_dispatcher(alias: str = DEFAULT) -> BaseDispatcher:
    """The dispatcher that is configured under an alias: the same one each time, built on first use.

    Raises:
        ConfigurationError: There is none of that alias, or it is configured wrongly.

        RejectedError: Another thread has been building it for too long.
    """
    found = state.snapshot.instances.get(alias)
    return _built_now(lambda _: _text(alias)) if found is None else found


def _built_now(name: Callable[[Snapshot], str]) -> BaseDispatcher:
    """A dispatcher from the current snapshot, even if that changes while it is being built."""
    while True:
        snapshot = state.snapshot
        found = snapshot.dispatcher(name(snapshot))
        if not snapshot.retired:
            return found


def _text(alias: object) -> str:
    if not isinstance(alias, str):
        raise ConfigurationError(f"an alias is text, not {type(alias).__name__}")
    return alias


def resolve(alias: str | None) -> BaseDispatcher:
    """The dispatcher for a task: an alias that is not configured falls back to `default`.

    Raises:
        ConfigurationError: There is none, or it is configured wrongly.
    """
    name = DEFAULT if alias is None else _text(alias)
    return _built_now(lambda snapshot: snapshot.known(name))


def fallbacks() -> tuple[str, ...]:
    """The aliases that tasks asked for, are not configured, and fell back to `default`."""
    return tuple(sorted(state.snapshot.fallbacks))


def current() -> Settings:
    """The settings in force, from all sources.

    Raises:
        ConfigurationError: A source cannot be read, or a setting is unknown or does not fit.
    """
    return state.snapshot.configuration.settings


def settings_of_task(name: str) -> Mapping[str, object]:
    """What the host says about a task by its exact name, by keyword; empty if nothing.

    Raises:
        ConfigurationError: As `current` does.
    """
    return state.snapshot.task(name)


def configure(settings: Mapping[str, object] | None = None, *, target: str | None = None) -> None:
    """Configure from code; replaces what was configured from code before.

    Environment and file still apply where `settings` says nothing. Dispatchers whose settings
    change are closed, the others stay.

    Args:
        settings: In the shape of `dispatchers.toml`.

        target: The target to select.

    Raises:
        ConfigurationError: Something is wrong with the selected target; nothing has changed then.
    """
    explicit = _layer(settings, target, "configure()")
    state.change(lambda view: view.changed(view.stack, explicit, anew=True), raise_all)


def _layer(settings: object, target: str | None, origin: str) -> Layer:
    values = code_layer({} if settings is None else settings, origin).values
    if target is not None:
        values["target"] = target
    return Layer(values, origin)


def reload() -> None:
    """Read environment, framework and file again.

    Dispatchers whose settings are the same stay, the others are closed.
    """
    state.change(lambda view: view.changed(view.stack, view.explicit, anew=True))


class override:  # noqa: N801 - reads as a verb, like a function
    """Use other settings for a while, in tests: a context manager, or a decorator.

    The whole process sees them, other threads too. They beat every other source; a dispatcher
    or a task that they name begins afresh. On exit everything is as it was.

    ::

        with override(default="memory"):
            ...

    Args:
        settings: In the shape of `dispatchers.toml`.

        target: The target to select.

        dispatchers: By alias: a dispatcher (not owned, never closed), a table of `backend` and
            options, or the name of a backend.

    Raises:
        ConfigurationError: On entering, if something of it is wrong.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        /,
        *,
        target: str | None = None,
        **dispatchers: Given,
    ) -> None:
        self._layer = _layer(settings, target, "override()")
        self._dispatchers = {k: _given(k, v) for k, v in dispatchers.items()}
        self._entered: list[tuple[Overriding, Layer]] = []

    def __enter__(self) -> Self:
        own = Overriding(self._layer, self._dispatchers)
        named = None if self._layer.values else self._dispatchers
        explicit = state.view.explicit
        state.change(
            lambda view: view.changed((*view.stack, own), view.explicit, anew=False),
            lambda snapshot: raise_all(snapshot, named),
        )
        self._entered.append((own, explicit))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        own, explicit = self._entered.pop()
        state.change(lambda view: _without(view, own, explicit))

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function, or a coroutine function, so that it runs with these settings."""
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, T]", self._around_async(function))

        @wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> T:
            with self:
                return function(*args, **kwargs)

        return inside

    def _around_async(self, function: Callable[P, Any]) -> Callable[P, Any]:
        @wraps(function)
        async def inside(*args: P.args, **kwargs: P.kwargs) -> Any:
            with self:
                return await function(*args, **kwargs)

        return inside


def _without(view: View, own: Overriding, explicit: Layer) -> View:
    stack = tuple(each for each in view.stack if each is not own)
    return view.changed(stack, explicit, anew=view.explicit is not explicit)


def _given(alias: str, given: object) -> Given:
    if isinstance(given, str) or is_dispatcher(given):
        return given
    if isinstance(given, Mapping):
        return code_layer(given, f"override({alias}=...)").values
    raise ConfigurationError(
        f"override({alias}=...) takes a dispatcher, a table of options or the name of a backend, "
        f"not {type(given).__name__}"
    )


def close_all(timeout: float = CLOSE_WAIT) -> int:
    """Close every dispatcher that was built from settings; the next use builds it anew.

    Returns:
        How many pieces of accepted work were left undone.
    """
    return state.change(View.emptied, timeout=timeout)


def _close_at_exit() -> None:
    """Let dispatchers finish what they hold; they stay, closed, for those who still dispatch."""
    read_already = state.snapshot._read.get("")
    timeout = read_already.settings.exit_timeout if read_already else CLOSE_WAIT
    _close(state.view.built().values(), timeout)


_said_once: set[str] = set()


def _say_nothing_is_configured(configuration: Configuration) -> None:
    if not configuration.settings.targets and "unconfigured" not in _said_once:
        _said_once.add("unconfigured")
        log.warning(
            "no dispatchers are configured: tasks run inline, in the process that dispatches them; "
            "write a dispatchers.toml or call dispatchers.configure(...)"
        )


_draining_in: set[int] = set()


def _drain_with_multiprocessing() -> None:
    """Children of `multiprocessing` that were forked end without exit functions (to 3.13)."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and os.getpid() not in _draining_in:
        _draining_in.add(os.getpid())
        util.Finalize(None, _close_at_exit, exitpriority=0)


# At import, so that it runs after the exit functions of applications, which may still dispatch.
atexit.register(_close_at_exit)
_registry.table.on_change.append(reload)
