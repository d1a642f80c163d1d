"""Where settings come from: code, environment, framework, file; and where each value came from.

A layer is what one source says. Layers are merged key by key, the highest first, and every
value remembers its origin, so that an error can name the file or the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from ._errors import ConfigurationError
from ._library import cause

__all__ = [
    "CONFIG",
    "DEFAULT",
    "Keys",
    "Layer",
    "Tree",
    "code_layer",
    "dotted",
    "file_layer",
    "framework_layer",
    "merged",
    "set_framework_source",
]

CONFIG = "DISPATCHERS_CONFIG"
DEFAULT = "default"
"""The alias of tasks that name none, or one that is not configured."""
FILE = "dispatchers.toml"
PROJECT_FILE = "pyproject.toml"
BARE = re.compile(r"[A-Za-z0-9_-]+")

Keys = tuple[str, ...]
Tree = dict[str, object]


def dotted(keys: Iterable[object]) -> str:
    """Keys as TOML writes them: `tasks."acme.record".queue`."""
    return ".".join(key if BARE.fullmatch(key) else f'"{key}"' for key in map(str, keys))


class Layer:
    """What one source says, and where it says it.

    Args:
        values: Tables within tables; normalised and owned from here on.

        origin: Of every value, unless `origins` knows better.

        origins: The origin by the keys that lead to a value.
    """

    def __init__(
        self, values: Tree, origin: str = "defaults", origins: dict[Keys, str] | None = None
    ) -> None:
        self.values = values
        self.origin = origin
        self.origins = dict.fromkeys(map(_first, _leaves(values)), origin)
        self.origins.update(origins or {})

    def origin_of(self, keys: Keys) -> str:
        """Where the value at `keys` came from; for a table, or what is missing, the nearest."""
        while keys:
            if keys in self.origins:
                return self.origins[keys]
            if below := [o for k, o in self.origins.items() if k[: len(keys)] == keys]:
                return below[0]
            keys = keys[:-1]
        return self.origin


def _first(leaf: tuple[Keys, object]) -> Keys:
    return leaf[0]


def _leaves(values: Tree, above: Keys = ()) -> Iterator[tuple[Keys, object]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def merged(layers: Iterable[Layer]) -> Layer:
    """The layers as one, the highest first."""
    result = Layer({})
    for layer in reversed([*layers]):
        result = Layer(_over(layer.values, result.values), layer.origin, _origins(layer, result))
    return result


def _over(high: Tree, low: Tree) -> Tree:
    values = dict(low)
    for key, value in high.items():
        below = values.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        values[key] = _over(cast("Tree", value), cast("Tree", below)) if both else value
    return values


def _origins(high: Layer, low: Layer) -> dict[Keys, str]:
    return {**low.origins, **high.origins}


def replaced(high: Layer, low: Layer) -> Layer:
    """`low` without the dispatchers and task overrides that `high` names: they begin afresh."""
    values = dict(low.values)
    values["tasks"] = _without(low, "tasks", _table(high.values.get("tasks")))
    targets = dict(_table(low.values.get("targets")))
    for name, named in _table(high.values.get("targets")).items():
        below = _table(targets.get(name))
        targets[name] = {k: v for k, v in below.items() if k not in _table(named)}
    values["targets"] = targets
    return Layer({k: v for k, v in values.items() if v != {}}, low.origin, low.origins)


def _without(layer: Layer, key: str, named: Tree) -> Tree:
    return {k: v for k, v in _table(layer.values.get(key)).items() if k not in named}


def _table(value: object) -> Tree:
    return cast("Tree", value) if isinstance(value, dict) else {}


# From code.


def code_layer(settings: object, origin: str) -> Layer:
    """What was given from code; mappings are copied, other values are kept as they are.

    Raises:
        ConfigurationError: A key is no text, or a table is something else.
    """
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{origin} takes a mapping, not {type(settings).__name__}")
    return normalised(_copied(settings, origin, ()), origin)


def _copied(settings: Mapping[object, object], origin: str, above: Keys) -> Tree:
    copy: Tree = {}
    for key, value in settings.items():
        if not isinstance(key, str):
            where = dotted(above) or "settings"
            raise ConfigurationError(f"{where} ({origin}): key {key!r} is no text")
        copy[key] = _copied(value, origin, (*above, key)) if isinstance(value, Mapping) else value
    return copy


def normalised(values: Tree, origin: str, origins: dict[Keys, str] | None = None) -> Layer:
    """One layer in its one shape: `tasks` is a table, dispatchers are tables.

    Raises:
        ConfigurationError: A table is something else.
    """
    given = Layer(values, origin, origins)
    values = dict(values)
    if isinstance(values.get("tasks"), list | tuple):
        modules = cast("list[object]", values.pop("tasks"))
        values["modules"] = [*modules, *cast("list[object]", values.get("modules", ()))]
    for name, task in _items(given, values.get("tasks", {}), "tasks"):
        _items(given, task, "tasks", name)
    if "targets" in values:
        values["targets"] = {
            name: {
                alias: _dispatcher(given, value, name, alias)
                for alias, value in _items(given, target, "targets", name)
            }
            for name, target in _items(given, values["targets"], "targets")
        }
    return Layer(values, origin, given.origins)


def _dispatcher(layer: Layer, value: object, target: str, alias: str) -> Tree:
    """A dispatcher's table; a text is short for one with that backend."""
    if isinstance(value, str):
        return {"backend": value}
    return dict(_items(layer, value, "targets", target, alias))


def _items(layer: Layer, value: object, *keys: str) -> list[tuple[str, object]]:
    """What is in a table."""
    if isinstance(value, dict):
        return list(value.items())
    kind = "text" if isinstance(value, str) else type(value).__name__
    raise ConfigurationError(
        f"{dotted(keys)} ({layer.origin_of(keys)}): must be a table, not {kind}"
    )


# From a framework.

_framework: tuple[Callable[[], Mapping[str, object] | None], str] | None = None


def set_framework_source(
    source: Callable[[], Mapping[str, object] | None] | None, name: str = "framework settings"
) -> None:
    """Let a framework's settings take part: above the file, below the environment.

    Args:
        source: Gives the settings when they are needed; None of it, or from it, takes no part.

        name: What errors call it, `settings.DISPATCHERS` for one.
    """
    global _framework
    _framework = None if source is None else (source, name)


def framework_layer() -> Layer:
    """What the framework's settings say now.

    Raises:
        ConfigurationError: They cannot be read, or a table is something else.
    """
    if _framework is None:
        return Layer({})
    source, name = _framework
    try:
        given = source()
    except ConfigurationError:
        raise
    except Exception as exc:
        raise ConfigurationError(f"{name} cannot be read: {cause(exc)}") from exc
    return Layer({}) if given is None else code_layer(given, name)


# From a file.


def file_layer(environ: Mapping[str, str]) -> Layer:
    """What the file says: the one that `DISPATCHERS_CONFIG` names, else the nearest one upwards.

    Raises:
        ConfigurationError: It is not there, cannot be read, or is not TOML.
    """
    if named := environ.get(CONFIG):
        return _named(Path(named))
    try:
        start = Path.cwd()
    except OSError:
        return Layer({})
    found = (layer for folder in (start, *start.parents) if (layer := _in(folder)) is not None)
    return next(found, Layer({}))


def _named(path: Path) -> Layer:
    values = _parsed(_read(path, f"variable {CONFIG}: "), path)
    if path.name != PROJECT_FILE:
        return normalised(values, str(path))
    own = _own_table(values)
    if own is None:
        raise ConfigurationError(f"variable {CONFIG}: {path} has no table [tool.dispatchers]")
    return normalised(own, str(path))


def _in(folder: Path) -> Layer | None:
    """What a folder's own file says; None if it has none."""
    path = folder / FILE
    project = _project(folder / PROJECT_FILE)
    if not _is_file(path):
        return project
    if project is not None:
        raise ConfigurationError(
            f"{path} and [tool.dispatchers] in {project.origin} both configure: keep one of them"
        )
    return normalised(_parsed(_read(path), path), str(path))


def _project(path: Path) -> Layer | None:
    """The table in a pyproject.toml, if it is there; one without our name is not even parsed."""
    if not _is_file(path):
        return None
    text = _read(path)
    if b"dispatchers" not in text:
        return None
    own = _own_table(_parsed(text, path))
    return None if own is None else normalised(own, str(path))


def _own_table(values: Tree) -> Tree | None:
    own = _table(values.get("tool")).get("dispatchers")
    return None if own is None else _table(own)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _read(path: Path, why: str = "") -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
        raise ConfigurationError(f"{why}{path} cannot be read: {reason}") from exc


def _parsed(text: bytes, path: Path) -> Tree:
    import tomllib

    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
