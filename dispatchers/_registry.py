"""Which backends there are, whose they are, and whether they can be used.

A backend is found by its name: a built-in one, an entry point in the group
`dispatchers.backends`, or a class that was registered from code. Its module is imported when
somebody asks for it, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeVar, overload

from ._backend_check import class_problems
from ._contract import BaseDispatcher
from ._entry_points import Claim, entry_points
from ._errors import ConfigurationError, MissingDependencyError, RegistrationError, nearest
from ._library import cause, import_object, install, is_importable

__all__ = ["BUILT_IN", "BackendInfo", "backends", "load_backend", "refresh", "register"]

CORE = "dispatchers"

BUILT_IN: Mapping[str, str] = {
    "inline": "dispatchers.backends.inline:InlineDispatcher",
    "thread": "dispatchers.backends.thread:ThreadDispatcher",
    "asyncio": "dispatchers.backends.asyncio:AsyncioDispatcher",
    "memory": "dispatchers.backends.memory:MemoryDispatcher",
    "null": "dispatchers.backends.null:NullDispatcher",
    "sqlite": "dispatchers.backends.sqlite:SQLiteDispatcher",
}
LIBRARIES: Mapping[str, str] = {"celery": "celery", "cloud_tasks": "google.cloud.tasks_v2"}
"""Bundled adapters by their extra, and the module that it brings."""

State = Literal["installed", "missing", "broken", "conflict"]
D = TypeVar("D", bound=type[BaseDispatcher])


class BackendInfo(NamedTuple):
    """What is known about one backend, found out without network."""

    name: str
    """The name it is configured by."""
    owner: str
    """The distribution and its version, `dispatchers` for a built-in one, or `code`."""
    state: State
    """`installed`, `missing` (its library), `broken` (its code), or `conflict` (two owners)."""
    reason: str | None = None
    """What is wrong and the cure; None if it is installed."""
    extra: str | None = None
    """What `pip install` takes to bring its library; None if it needs none that is known."""
    cls: type[BaseDispatcher] | None = None
    """The class, if it could be loaded: its capabilities can be read from it."""


class _Code(NamedTuple):
    cls: type[BaseDispatcher]
    replaces: bool


class _Table:
    """The process's backends. No locks: every change is one operation on a dict."""

    def __init__(self) -> None:
        self.scanned: dict[str, tuple[Claim, ...]] | None = None
        self.code: dict[str, _Code] = {}
        self.loaded: dict[str, type[BaseDispatcher]] = {}
        self.on_change: list[Callable[[], None]] = []

    def changed(self) -> None:
        """Forget what was loaded and tell those who built something from it."""
        self.loaded = {}
        for listener in self.on_change:
            listener()


table = _Table()


@overload
def register(cls: D, /, *, replace: bool = False) -> D: ...
@overload
def register(*, replace: bool = False) -> Callable[[D], D]: ...
def register(cls: D | None = None, /, *, replace: bool = False) -> D | Callable[[D], D]:
    """Make a backend known by its `name`, from code or a notebook; usable as a decorator.

    Args:
        cls: A concrete subclass of `BaseDispatcher`.

        replace: Take the name over from whoever has it.

    Raises:
        RegistrationError: The class lacks something, or the name has an owner.
    """
    if cls is None:
        return lambda given: register(given, replace=replace)
    _refuse_incomplete(cls)
    if not replace:
        _refuse_taken(cls)
    if table.code.get(cls.name) != (cls, replace):
        table.code[cls.name] = _Code(cls, replace)
        table.changed()
    return cls


def _refuse_incomplete(cls: object) -> None:
    if problems := class_problems(cls, getattr(cls, "name", None)):
        raise RegistrationError(f"{_reference(cls)} is no backend: {'; '.join(problems)}")


def _refuse_taken(cls: type[BaseDispatcher]) -> None:
    others = [claim for claim in _claims(cls.name) if claim.reference != _reference(cls)]
    known = table.code.get(cls.name)
    if others or (known is not None and known.cls is not cls):
        owner = others[0] if others else Claim("code", _reference(cls))
        raise RegistrationError(
            f"backend {cls.name!r} of code ({_reference(cls)}) has another owner, {owner}: "
            "choose another name, or register(..., replace=True)"
        )


def _reference(cls: object) -> str:
    if isinstance(cls, type):
        return f"{cls.__module__}:{cls.__qualname__}"
    return f"an object of type {type(cls).__name__}"


def load_backend(name: str) -> type[BaseDispatcher]:
    """The class of a backend whose library is installed.

    Raises:
        MissingDependencyError: Its library is not installed.

        RegistrationError: There is no such backend, it has two owners, or it is broken.
    """
    if not isinstance(name, str):
        raise RegistrationError(f"a backend's name is text, not {type(name).__name__}")
    cls = _loaded(name)
    if not _available(name, cls):
        raise _missing(name, _claims(name)[0], cls.library)
    return cls


def _loaded(name: str) -> type[BaseDispatcher]:
    cls = table.loaded.get(name)
    if cls is None:
        cls = table.loaded[name] = _load(name)
    return cls


def _load(name: str) -> type[BaseDispatcher]:
    claims = _claims(name)
    if not claims:
        raise _unknown(name)
    if len(claims) > 1:
        raise RegistrationError(_conflict(name, claims))
    cls = _imported(name, claims[0])
    if problems := class_problems(cls, name):
        owner = claims[0]
        raise RegistrationError(f"backend {name!r} of {owner} is broken: {'; '.join(problems)}")
    assert isinstance(cls, type)
    return cls


def _imported(name: str, claim: Claim) -> object:
    if (code := table.code.get(name)) is not None:
        return code.cls
    try:
        return import_object(claim.reference)
    except MissingDependencyError:
        raise
    except Exception as exc:
        if _is_bundled(name, claim) and not is_importable(LIBRARIES[name]):
            raise _missing(name, claim, LIBRARIES[name]) from exc
        raise RegistrationError(
            f"backend {name!r} of {claim} is broken: importing it raised {cause(exc)}: "
            f"repair or uninstall {claim.distribution!r}"
        ) from exc


def _available(name: str, cls: type[BaseDispatcher]) -> bool:
    try:
        return bool(cls.is_available())
    except Exception as exc:
        raise RegistrationError(
            f"backend {name!r} of {_claims(name)[0]} is broken: is_available() must not raise, "
            f"it raised {cause(exc)}"
        ) from exc


def _is_bundled(name: str, claim: Claim) -> bool:
    return name in LIBRARIES and claim.distribution == CORE


def _missing(name: str, claim: Claim, library: str | None) -> MissingDependencyError:
    what = f"the library {library!r}" if library else "a library"
    extra = extra_of(name, claim)
    cure = install(extra) if extra else f"install what {claim.owner} needs for it"
    return MissingDependencyError(f"backend {name!r} needs {what}, which is not installed: {cure}")


def extra_of(name: str, claim: Claim) -> str | None:
    """What brings the library of a backend: an extra of its name, if its owner has one."""
    if _is_bundled(name, claim):
        return f"{CORE}[{name}]"
    from importlib import metadata

    try:
        extras = metadata.metadata(claim.distribution).get_all("Provides-Extra") or []
    except Exception:  # noqa: BLE001 - owners without metadata have no extras
        return None
    found = name.replace("_", "-") in [extra.replace("_", "-") for extra in extras]
    return f"{claim.distribution}[{name}]" if found else None


def _unknown(name: str) -> ConfigurationError:
    if name in LIBRARIES:
        return _missing(name, Claim(CORE, ""), LIBRARIES[name])
    return RegistrationError(f"no backend {name!r}{nearest(name, names())}")


def _conflict(name: str, claims: list[Claim]) -> str:
    owners = " and ".join(map(str, claims))
    return f"backend {name!r} has {len(claims)} owners, {owners}: uninstall all but one"


def names() -> list[str]:
    """The names of every backend that somebody claims, and of the bundled adapters."""
    return sorted({*_scan(), *table.code, *LIBRARIES})


def _claims(name: str) -> list[Claim]:
    """Who says that the name is theirs; a class that replaces is alone."""
    found = _scan().get(name, ())
    code = table.code.get(name)
    if code is None:
        return [*found]
    own = Claim("code", _reference(code.cls))
    if code.replaces:
        return [own]
    return [own, *(claim for claim in found if claim.reference != own.reference)]


def backends() -> list[BackendInfo]:
    """Every backend that is known, by name, without network. Never raises an `Exception`."""
    return [_info(name) for name in names()]


def _info(name: str) -> BackendInfo:
    claims = _claims(name) or [Claim(CORE, "")]
    owner = " and ".join(claim.owner for claim in claims)
    if len(claims) > 1:
        return BackendInfo(name, owner, "conflict", _conflict(name, claims))
    extra = extra_of(name, claims[0])
    cls = None
    try:
        cls = _loaded(name)
        load_backend(name)
    except MissingDependencyError as exc:
        return BackendInfo(name, owner, "missing", str(exc), extra, cls)
    except Exception as exc:  # noqa: BLE001 - one broken backend hides no other
        return BackendInfo(name, owner, "broken", cause_of(exc), extra, cls)
    return BackendInfo(name, owner, "installed", None, extra, cls)


def cause_of(exc: Exception) -> str:
    """Our own messages as they are, others with their type."""
    return str(exc) if isinstance(exc, RegistrationError) else cause(exc)


def refresh() -> None:
    """Look for entry points again, after something was installed into a running process."""
    table.scanned = None
    table.changed()


def _scan() -> dict[str, tuple[Claim, ...]]:
    """Names and their claims, looked for once per process: tens of milliseconds."""
    if table.scanned is None:
        table.scanned = _with_entry_points()
    return table.scanned


def _with_entry_points() -> dict[str, tuple[Claim, ...]]:
    found: dict[str, tuple[Claim, ...]] = {}
    found.update((name, (Claim(CORE, reference),)) for name, reference in BUILT_IN.items())
    for name, claim in entry_points():
        known = found.get(name, ())
        ours = any((claim.distribution, claim.reference) == (c.distribution, c[1]) for c in known)
        found[name] = known if ours else (*known, claim)
    return found
