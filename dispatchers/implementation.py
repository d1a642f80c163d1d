"""One import name for packages of which exactly one is to be installed.

A package with several mutually exclusive implementations (a Postgres build and a SQLite build
of one extension, say) exposes the one that is there from its own `__init__.py`::

    from dispatchers.implementation import Implementation, expose

    expose(
        __name__,
        Implementation("acme_search_postgres", "acme-search-postgres", ">=1.2,<2"),
        Implementation("acme_search_sqlite", "acme-search-sqlite", ">=1.2,<2"),
        required=("Index", "search"),
    )

`import acme_search` is then that implementation, and `acme_search.query` its module `query`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from operator import eq, ge, gt, le, lt, ne
from types import ModuleType
from typing import Any

from ._errors import MissingDependencyError, RegistrationError
from ._library import cause, imported, install, is_importable, missing_names

__all__ = ["Implementation", "expose", "installed"]

RELEASE = re.compile(r"(?:(\d+)!)?v?(\d+(?:\.\d+)*)")
CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*((?:\d+!)?\d+(?:\.\d+)*)")
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": ge,
    "<=": le,
    "==": eq,
    "!=": ne,
    ">": gt,
    "<": lt,
}


@dataclass(frozen=True, slots=True)
class Implementation:
    """One of several packages that stand in for one name."""

    module: str
    """What is imported."""
    distribution: str
    """What is installed."""
    version: str = ""
    """The versions that will do, `>=1.2,<2`; a pre-release counts as its release."""

    @property
    def requirement(self) -> str:
        """What `pip install` takes."""
        return f"{self.distribution}{self.version}"


def installed(name: str, *implementations: Implementation) -> Implementation:
    """The one implementation that is installed, in a version that will do.

    Args:
        name: What they implement, for messages.

        implementations: At least one.

    Raises:
        MissingDependencyError: None is installed, or one in another version.

        RegistrationError: Several are installed.

        ValueError: A version is not of the form `>=1.2,<2`.
    """
    for each in implementations:
        _clauses(each.version)
    found = [(each, version) for each in implementations if (version := _version(each))]
    if not found:
        cures = " or ".join(install(each.requirement) for each in implementations)
        raise MissingDependencyError(f"no implementation of {name!r} is installed: {cures}")
    if len(found) > 1:
        raise RegistrationError(_conflict(name, found))
    chosen, version = found[0]
    if not satisfies(version, chosen.version):
        raise MissingDependencyError(
            f"{name!r} needs {chosen.requirement!r}, {version} is installed: "
            f"{install(chosen.requirement)}"
        )
    return chosen


def _conflict(name: str, found: Sequence[tuple[Implementation, str]]) -> str:
    both = " and ".join(f"{each.distribution} {version}" for each, version in found)
    cures = " or ".join(f"pip uninstall {each.distribution}" for each, _ in found)
    return f"{name!r} has {len(found)} implementations, {both}, and takes one: {cures}"


def expose(name: str, *implementations: Implementation, required: Iterable[str] = ()) -> ModuleType:
    """Make `import name` the implementation that is installed, its modules included.

    Args:
        name: The import name, `__name__` in the package's own `__init__.py`.

        implementations: As `installed` takes them.

        required: What an implementation must have, dotted names too.

    Raises:
        MissingDependencyError: None is installed, or one in another version.

        RegistrationError: Several are installed, it cannot be imported, or it lacks a name.

        ValueError: A version is not of the form `>=1.2,<2`.
    """
    chosen = installed(name, *implementations)
    module = _imported(name, chosen)
    if missing := missing_names(module, required):
        raise RegistrationError(
            f"{chosen.module!r} of {chosen.distribution} {_version(chosen)} lacks "
            f"{', '.join(missing)}, which {name!r} requires: "
            f"pip install --upgrade {chosen.requirement!r}"
        )
    if name != chosen.module:
        _aliases.add(name, chosen.module)
        sys.modules[name] = module
    return module


def _imported(name: str, chosen: Implementation) -> ModuleType:
    try:
        return imported(chosen.module)
    except Exception as exc:
        raise RegistrationError(
            f"{chosen.module!r}, the implementation of {name!r} from {chosen.distribution} "
            f"{_version(chosen)}, is broken: importing it raised {cause(exc)}: "
            f"pip install --force-reinstall {chosen.requirement!r}"
        ) from exc


def _version(implementation: Implementation) -> str | None:
    """The installed version; None if it is not installed."""
    from importlib import metadata

    try:
        found: str | None = metadata.version(implementation.distribution)
    except metadata.PackageNotFoundError:
        return None
    if not found:
        raise RegistrationError(
            f"the installation of {implementation.distribution} has no version: "
            f"pip install --force-reinstall {implementation.requirement!r}"
        )
    return found


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version lies within `>=1.2,<2`; only release numbers are compared."""
    own = release(version)
    return all(COMPARE[operator](own, wanted) for operator, wanted in _clauses(specifier))


def _clauses(specifier: str) -> list[tuple[str, tuple[int, ...]]]:
    parts = [part.strip() for part in specifier.split(",") if part.strip()]
    found = [CLAUSE.fullmatch(part) for part in parts]
    if not all(found):
        raise ValueError(f"version {specifier!r} is not of the form '>=1.2,<2'")
    return [(match[1], release(match[2])) for match in found if match]


def release(version: str) -> tuple[int, ...]:
    """Epoch and release numbers without zeros at the end, so that 1.0 is 1."""
    match = RELEASE.match(version)
    if match is None:
        raise ValueError(f"version {version!r} has no release number")
    numbers = [int(match[1] or 0), *map(int, match[2].split("."))]
    while numbers[-1] == 0 and len(numbers) > 1:
        numbers.pop()
    return tuple(numbers)


class _Aliases(MetaPathFinder, Loader):
    """Imports `name.module` as the module of the implementation: one module, two names."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def add(self, name: str, real: str) -> None:
        self.names[name] = real
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        del path, target
        real = self._real(fullname)
        if real is None or not is_importable(real):
            return None
        return ModuleSpec(fullname, self, origin=real)

    def _real(self, fullname: str) -> str | None:
        for name, real in self.names.items():
            if fullname.startswith(f"{name}."):
                return real + fullname[len(name) :]
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(str(spec.origin))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back: it was executed under its own name."""
        if module.__spec__ is not None and module.__spec__.loader is self:
            module.__spec__ = module.__spec__.loader_state


_aliases = _Aliases()
