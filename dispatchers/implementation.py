"""One import name for packages of which exactly one is to be installed.

A package with several mutually exclusive implementations (a Postgres build and a SQLite build
of one extension, say) exposes the one that is there from its own `__init__.py`::

    from typing import TYPE_CHECKING
    from dispatchers.implementation import Implementation, expose

    expose(
        __name__,
        Implementation("acme_search_postgres", "acme-search-postgres", ">=1.2,<2"),
        Implementation("acme_search_sqlite", "acme-search-sqlite", ">=1.2,<2"),
        required=("Index", "search"),
    )
    if TYPE_CHECKING:  # type checkers read the names from the one that they have installed
        from acme_search_postgres import *

`acme_search.search` is then that of the implementation, and `acme_search.query` its module `query`.
What the facade itself defines stays: its own names and modules come first.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from operator import eq, ge, gt, le, lt, ne
from types import CodeType, ModuleType
from typing import Any

from dispatchers._runtime.importing import cause, imported, install, is_importable, missing_names

from ._errors import MissingDependencyError, RegistrationError

__all__ = ["Implementation", "ImplementationError", "expose", "installed"]

VERSION = re.compile(
    r"v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<stage>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<stage_number>\d*))?"
    r"(?P<post>-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?"
    r"(?P<dev>[-_.]?dev[-_.]?\d*)?"
    r"(?:\+[a-z0-9._-]+)?",
    re.IGNORECASE,
)
"""A version as https://peps.python.org/pep-0440/ has it; what follows `+` is not compared."""
CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*([^\s<>=!~*]+(?:![^\s<>=!~*]+)?)")
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": ge,
    "<=": le,
    "==": eq,
    "!=": ne,
    ">": gt,
    "<": lt,
}
STAGES = {"a": 1, "b": 2, "c": 3, "p": 3, "r": 3}
"""Alpha, beta and release candidate, by the first letter of each of their spellings."""
FINAL, NO_POST = 4, -1
NEVER = sys.maxsize


class ImplementationError(RegistrationError, ImportError):
    """The implementation that is installed cannot be used; an ImportError, as it is met by one."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One of several packages that stand in for one name."""

    module: str
    """The module that is imported."""
    distribution: str
    """The distribution that is installed."""
    version: str = ""
    """The accepted versions, `>=1.2,<2`; a pre-release comes before its release, `>=2.0rc1`."""

    @property
    def requirement(self) -> str:
        """Return what `pip install` takes."""
        return f"{self.distribution}{self.version}"


def installed(name: str, *implementations: Implementation) -> Implementation:
    """Return the one implementation that is installed, in an accepted version.

    Args:
        name: The import name they implement, for messages.

        implementations: At least one.

    Raises:
        MissingDependencyError: None is installed, or one in another version.

        ImplementationError: Several are installed, or the version cannot be compared.

        ValueError: A version is not of the form `>=1.2,<2`.
    """
    # All versions first: a mistyped one must not show up only where that package is installed.
    for each in implementations:
        _clauses(each.version)
    found = [(each, version) for each in implementations if (version := _version(each))]
    if not found:
        cures = " or ".join(install(each.requirement) for each in implementations)
        raise MissingDependencyError(f"no implementation of {name!r} is installed: {cures}")
    if len(found) > 1:
        raise ImplementationError(_conflict(name, found))
    chosen, version = found[0]
    if not satisfies(version, chosen.version):
        raise MissingDependencyError(
            f"{name!r} needs {chosen.requirement!r}, {version} is installed: "
            f"{install(chosen.requirement)}{_hint(version, chosen.version)}"
        )
    return chosen


def _hint(version: str, specifier: str) -> str:
    """Say why a pre-release is not enough, which its number alone would be."""
    # Only the release is compared: what stands behind it is the reason for the refusal.
    match = VERSION.fullmatch(version)
    if match is None or not satisfies(match["release"], specifier):
        return ""
    return f" ({version} comes before {match['release']}; '>={version}' accepts it)"


def _conflict(name: str, found: Sequence[tuple[Implementation, str]]) -> str:
    both = " and ".join(f"{each.distribution} {version}" for each, version in found)
    cures = " or ".join(f"pip uninstall {each.distribution}" for each, _ in found)
    return f"{name!r} has {len(found)} implementations, {both}, and takes one: {cures}"


def expose(name: str, *implementations: Implementation, required: Iterable[str] = ()) -> ModuleType:
    """Give the package `name` the names and modules of the implementation that is installed.

    Args:
        name: The import name, `__name__` in the package's own `__init__.py`.

        implementations: As `installed` takes them.

        required: Names that an implementation must have, dotted ones too.

    Returns:
        The implementation's module.

    Raises:
        MissingDependencyError: None is installed, or one in another version.

        ImplementationError: Several are installed, it cannot be imported, or it lacks a name.

        ValueError: A version is not of the form `>=1.2,<2`.
    """
    chosen = installed(name, *implementations)
    if name == chosen.module:
        return _checked(name, chosen, required)
    # Before the implementation is imported: importing a module of a package that another thread
    # is importing does not wait for the package.
    _submodules.add(name, chosen.module)
    try:
        module = _checked(name, chosen, required)
    except BaseException:
        _submodules.names.pop(name, None)
        raise
    _link(sys.modules.setdefault(name, module), module)
    return module


def _checked(name: str, chosen: Implementation, required: Iterable[str]) -> ModuleType:
    """Import the implementation; refuse one that lacks a name."""
    module = _imported(name, chosen)
    if missing := missing_names(module, required):
        raise ImplementationError(
            f"{chosen.module!r} of {chosen.distribution} {_version(chosen)} lacks "
            f"{', '.join(missing)}, which {name!r} requires: "
            f"pip install --upgrade {chosen.requirement!r}"
        )
    return module


def _link(facade: ModuleType, module: ModuleType) -> None:
    """Let the facade find in the module what it lacks itself.

    The facade is not replaced: threads that wait for its import hold it already.
    """
    if facade is not module:
        facade.__class__ = _Facade
        vars(facade)["__implementation__"] = module


class _Facade(ModuleType):
    """A module that has the names of another besides its own."""

    __implementation__: ModuleType

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # for `from acme_search import *`
            return _public(self.__implementation__)
        try:
            return getattr(self.__implementation__, name)
        except AttributeError:
            raise AttributeError(
                f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self
            ) from None

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(self.__implementation__)})


def _public(module: ModuleType) -> list[str]:
    return getattr(module, "__all__", None) or [n for n in dir(module) if not n.startswith("_")]


def _imported(name: str, chosen: Implementation) -> ModuleType:
    try:
        return imported(chosen.module)
    except Exception as exc:
        raise ImplementationError(
            f"{chosen.module!r}, the implementation of {name!r} from {chosen.distribution} "
            f"{_version(chosen)}, is broken: importing it raised {cause(exc)}: "
            f"pip install --force-reinstall {chosen.requirement!r}"
        ) from exc


def _version(implementation: Implementation) -> str | None:
    """Return the installed version; None if it is not installed."""
    from importlib import metadata

    try:
        found: str | None = metadata.version(implementation.distribution)
    except metadata.PackageNotFoundError:
        return None
    if found is None or VERSION.fullmatch(found) is None:
        told = f"version {found!r}, which cannot be compared" if found else "no version"
        raise ImplementationError(
            f"the installation of {implementation.distribution} has {told}: "
            f"pip install --force-reinstall {implementation.requirement!r}"
        )
    return found


def satisfies(version: str, specifier: str) -> bool:
    """Return True if a version lies within `>=1.2,<2`, as pip orders versions."""
    return all(_fits(version, operator, wanted) for operator, wanted in _clauses(specifier))


def _fits(version: str, operator: str, wanted: str) -> bool:
    own, limit = sort_key(version), sort_key(wanted)
    if operator in "<>" and own[:2] == limit[:2] and limit[2:] == sort_key("0")[2:]:
        return False  # neither a pre-release nor a post-release of 2 is above or below 2
    return bool(COMPARE[operator](own, limit))


def _clauses(specifier: str) -> list[tuple[str, str]]:
    parts = [part.strip() for part in specifier.split(",") if part.strip()]
    found = [CLAUSE.fullmatch(part) for part in parts]
    good = [(match[1], match[2]) for match in found if match and VERSION.fullmatch(match[2])]
    if len(good) != len(parts):
        raise ValueError(f"version {specifier!r} is not of the form '>=1.2,<2'")
    return good


def sort_key(version: str) -> tuple[int, tuple[int, ...], tuple[int, int], int, int]:
    """Return what orders versions: epoch, release, pre-release, post-release, development."""
    match = VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"version {version!r} is none that can be compared")
    release = [int(number) for number in match["release"].split(".")]
    while release[-1] == 0 and len(release) > 1:  # 1.0 is 1
        release.pop()
    post = _number(match["post"]) if match["post"] else NO_POST
    dev = _number(match["dev"]) if match["dev"] else NEVER
    return int(match["epoch"] or 0), tuple(release), _stage(match, post, dev), post, dev


def _stage(match: re.Match[str], post: int, dev: int) -> tuple[int, int]:
    if match["stage"]:
        return STAGES[match["stage"][0].lower()], int(match["stage_number"] or 0)
    return (0, 0) if dev != NEVER and post == NO_POST else (FINAL, 0)


def _number(text: str) -> int:
    return int(re.sub(r"\D", "", text) or 0)


def _is_own(fullname: str, path: Sequence[str] | None) -> bool:
    """Return True for a module that the facade's own package, or one within, has on disk."""
    parent = fullname.rpartition(".")[0]
    # A package of the implementation under the facade's name: its folder is not the facade's.
    is_alias = sys.modules[parent].__name__ != parent
    return not is_alias and PathFinder.find_spec(fullname, path) is not None


class _Submodules(MetaPathFinder, Loader):
    """Imports `name.module` as the module of the implementation: one module, two names."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def add(self, name: str, real: str) -> None:
        self.names[name] = real
        if self not in sys.meta_path:
            # In front: the path finder would look into the facade's folder and fail.
            sys.meta_path.insert(0, self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        del target
        real = self._real(fullname)
        if real is None or _is_own(fullname, path) or not is_importable(real):
            return None
        own = find_spec(real)
        is_package = own is not None and own.submodule_search_locations is not None
        return ModuleSpec(fullname, self, origin=real, is_package=is_package)

    def _real(self, fullname: str) -> str | None:
        for name, real in list(self.names.items()):  # another thread may add one meanwhile
            if fullname.startswith(f"{name}."):
                return real + fullname[len(name) :]
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(str(spec.origin))
        # The import system sets our spec on the module; `exec_module` gives back the real one.
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back: it was executed under its own name."""
        if module.__spec__ is not None and module.__spec__.loader is self:
            module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code that `python -m` runs."""
        spec = find_spec(str(self._real(fullname)))
        loader: Any = spec and spec.loader
        code: CodeType | None = loader.get_code(spec.name) if spec and loader else None
        return code


_submodules = _Submodules()
