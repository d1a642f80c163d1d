"""Registry of backends: name, owner, state.

A backend is found by its name: a built-in one, an entry point in the group
`dispatchers.backends`, or a class that was registered from code. Its module is imported when
it is asked for, never before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar, overload

from dispatchers._config.backend_checks import class_problems
from dispatchers._config.entry_points import Claim, entry_points
from dispatchers._config.references import BUILT_IN, LIBRARIES
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import (
    ConfigurationError,
    ErrorCategory,
    MissingDependencyError,
    RegistrationError,
    RejectedError,
    nearest,
)
from dispatchers._runtime.importing import cause, import_object, install, is_importable

__all__ = ["BackendInfo", "backends", "load_backend", "refresh", "register"]

CORE = "dispatchers"


State = Literal["installed", "missing", "broken", "conflict"]


D = TypeVar("D", bound=type[BaseDispatcher])


class BackendInfo(NamedTuple):
    """Facts about one backend, gathered without network."""

    name: str
    """The name it is configured by."""
    owner: str
    """The distribution and its version, `dispatchers` for a built-in one, or `code`."""
    state: State
    """`installed`, `missing` (its library), `broken` (its code), or `conflict` (two owners)."""
    reason: str | None = None
    """The problem and its cure; None if it is installed."""
    extra: str | None = None
    """The requirement for `pip install`; None if it needs none that is known."""
    cls: type[BaseDispatcher] | None = None
    """The class, if it could be loaded: its capabilities can be read from it."""


class _Code(NamedTuple):
    cls: type[BaseDispatcher]
    replaces: bool


class _Table:
    """Backends of this process, without locks: each change is atomic."""

    def __init__(self) -> None:
        # None until the first look: reading the metadata of all distributions takes its time.
        self.scanned: dict[str, tuple[Claim, ...]] | None = None
        self.code: dict[str, _Code] = {}
        self.loaded: dict[str, type[BaseDispatcher]] = {}
        self.on_change: list[Callable[[], None]] = []

    def changed(self) -> None:
        """Forget what was loaded and tell those who built something from it."""
        # A new mapping, not `clear`: other threads may be reading the old one.
        self.loaded = {}
        for listener in self.on_change:
            listener()


table = _Table()


@overload
def register(cls: D, /, *, replace: bool = False) -> D: ...
@overload
def register(*, replace: bool = False) -> Callable[[D], D]: ...
def register(cls: D | None = None, /, *, replace: bool = False) -> D | Callable[[D], D]:
    """Register a backend from code; usable as a decorator.

    Args:
        cls: A concrete subclass of `BaseDispatcher`.

        replace: Take the name over from its owner.

    Raises:
        RegistrationError: The class lacks something, or the name has an owner.
    """
    if cls is None:
        return lambda given: register(given, replace=replace)
    _refuse_incomplete(cls)
    if not replace:
        _refuse_taken(cls)
    # A module that is reloaded registers the same class again: nothing has changed then.
    if table.code.get(cls.name) != (cls, replace):
        table.code[cls.name] = _Code(cls, replace)
        table.changed()
    return cls


def _refuse_incomplete(cls: object) -> None:
    if problems := class_problems(cls, getattr(cls, "name", None)):
        raise RegistrationError(f"{_reference(cls)} cannot be a backend: {'; '.join(problems)}")


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
    """Return the class of a backend whose library is installed.

    Raises:
        MissingDependencyError: Its library is not installed.

        RegistrationError: The backend is unknown, it has two owners, or it is broken.
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
    except Exception as exc:
        if (library := _lacking(name, claim, exc)) is not None:
            raise _missing(name, claim, library) from exc
        if isinstance(exc, MissingDependencyError):
            raise
        # Libraries that register exit functions on import cannot be imported then.
        if not threading.main_thread().is_alive():
            raise RejectedError(
                ErrorCategory.CLOSED,
                f"backend {name!r} cannot be imported any more ({cause(exc)}): the main thread has "
                "ended; call get_dispatcher() before it does",
            ) from exc
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


def _lacking(name: str, claim: Claim, exc: Exception) -> str | None:
    """Return the library that importing a bundled adapter missed; its extra brings it."""
    if not _is_bundled(name, claim):
        return None
    if not is_importable(LIBRARIES[name]):
        return LIBRARIES[name]
    missed = exc.name if isinstance(exc, ModuleNotFoundError) and exc.name else ""
    # A missing module of the adapter itself is a broken installation, and no extra cures that.
    own = {CORE, claim.reference.partition(":")[0].partition(".")[0]}
    return missed if missed and missed.partition(".")[0] not in own else None


def _is_bundled(name: str, claim: Claim) -> bool:
    return name in LIBRARIES and claim.distribution == CORE


def _missing(name: str, claim: Claim, library: str | None) -> MissingDependencyError:
    what = f"the library {library!r}" if library else "a library"
    extra = extra_of(name, claim)
    cure = install(extra) if extra else f"install what {claim.owner} needs for it"
    return MissingDependencyError(f"backend {name!r} needs {what}, which is not installed: {cure}")


def bundled_extra(name: str) -> str:
    """Return what brings a bundled adapter's library; pip before 23.3 knows only this spelling."""
    return f"{CORE}[{name.replace('_', '-')}]"


def extra_of(name: str, claim: Claim) -> str | None:
    """Return the extra that brings a backend's library, if there is one."""
    if _is_bundled(name, claim):
        return bundled_extra(name)
    from importlib import metadata

    try:
        extras = metadata.metadata(claim.distribution).get_all("Provides-Extra") or []
    except Exception:  # noqa: BLE001 - owners without metadata have no extras
        return None
    found = [extra for extra in extras if extra.replace("_", "-") == name.replace("_", "-")]
    return f"{claim.distribution}[{found[0]}]" if found else None


def _unknown(name: str) -> ConfigurationError:
    if name in LIBRARIES:
        return _missing(name, Claim(CORE, ""), LIBRARIES[name])
    return RegistrationError(f"no backend {name!r}{nearest(name, names())}")


def _conflict(name: str, claims: list[Claim]) -> str:
    owners = " and ".join(map(str, claims))
    return f"backend {name!r} has {len(claims)} owners, {owners}: uninstall all but one"


def names() -> list[str]:
    """Return the names of all backends and bundled adapters."""
    return sorted({*_scan(), *table.code, *LIBRARIES})


def _claims(name: str) -> list[Claim]:
    """Return the claims to a name; a class that replaces is alone."""
    found = _scan().get(name, ())
    code = table.code.get(name)
    if code is None:
        return [*found]
    own = Claim("code", _reference(code.cls))
    if code.replaces:
        return [own]
    return [own, *(claim for claim in found if claim.reference != own.reference)]


def backends() -> list[BackendInfo]:
    """Return every known backend by name; never raises an `Exception`."""
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
    """Return our own messages as they are, others with their type."""
    return str(exc) if isinstance(exc, RegistrationError) else cause(exc)


def refresh() -> None:
    """Scan entry points again, for what a notebook has installed meanwhile."""
    table.scanned = None
    table.changed()


def _scan() -> dict[str, tuple[Claim, ...]]:
    """Return the claims by name, scanned once: it takes tens of milliseconds."""
    if table.scanned is None:
        table.scanned = _with_entry_points()
    return table.scanned


def _with_entry_points() -> dict[str, tuple[Claim, ...]]:
    found: dict[str, tuple[Claim, ...]] = {}
    found.update((name, (Claim(CORE, reference),)) for name, reference in BUILT_IN.items())
    for name, claim in entry_points():
        known = found.get(name, ())
        # The wheel's own entry points name the built-in backends once more.
        ours = any((claim.distribution, claim.reference) == (c.distribution, c[1]) for c in known)
        found[name] = known if ours else (*known, claim)
    return found
