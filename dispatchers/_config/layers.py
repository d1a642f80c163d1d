"""Settings in layers, with the origin of every value.

A layer is what one source says. Layers are merged key by key, the highest first, and every
value remembers its origin, so that an error can name the file or the variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import cast

from dispatchers._errors import ConfigurationError
from dispatchers._models.paths import located, working_directory

__all__ = [
    "CONFIG",
    "DEFAULT",
    "Keys",
    "Layer",
    "Tree",
    "code_layer",
    "dotted",
    "merged",
    "normalised",
    "replaced",
    "table_of",
]

CONFIG = "DISPATCHERS_CONFIG"


DEFAULT = "default"
"""The alias of tasks that name none, or one that is not configured."""


BARE = re.compile(r"[A-Za-z0-9_-]+")


Keys = tuple[str, ...]


Tree = dict[str, object]


def dotted(keys: Iterable[object]) -> str:
    """Keys as TOML writes them: `tasks."acme.record".queue`."""
    return ".".join(key if BARE.fullmatch(key) else f'"{key}"' for key in map(str, keys))


class Layer:
    """Settings of one source, with the origin of each value.

    Args:
        values: Tables within tables; normalised and owned from here on.

        origin: Of every value, unless `origins` knows better.

        origins: The origin by the keys that lead to a value.

        dispatchers: Dispatchers that `override` gives, by alias: objects, tables or names.
    """

    def __init__(
        self,
        values: Tree,
        origin: str = "defaults",
        origins: dict[Keys, str] | None = None,
        dispatchers: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self.dispatchers = dispatchers
        self.values = values
        self.origin = origin
        self.origins = dict.fromkeys(map(_first, _leaves(values)), origin)
        self.origins.update(origins or {})

    def origin_of(self, keys: Keys) -> str:
        """Return the origin of a value; of a table, the nearest one."""
        # From the value up to its tables: an error in a missing key names the nearest table.
        while keys:
            if keys in self.origins:
                return self.origins[keys]
            # A table has no origin of its own: the first of its values stands for it.
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
    """Merge layers, the highest first."""
    result = Layer({})
    # From the lowest up: each layer is put over what the ones below it give.
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
    """Return `low` without the dispatchers and tasks that `high` names."""
    values = dict(low.values)
    values["tasks"] = _without(low, "tasks", table_of(high.values.get("tasks")))
    targets = dict(table_of(low.values.get("targets")))
    for name, named in table_of(high.values.get("targets")).items():
        below = table_of(targets.get(name))
        # Whole dispatchers: options of a former one must not mix with those of the new one.
        targets[name] = {k: v for k, v in below.items() if k not in table_of(named)}
    values["targets"] = targets
    return Layer({k: v for k, v in values.items() if v != {}}, low.origin, low.origins)


def _without(layer: Layer, key: str, named: Tree) -> Tree:
    return {k: v for k, v in table_of(layer.values.get(key)).items() if k not in named}


def table_of(value: object) -> Tree:
    """Return the table; an empty one in place of anything else."""
    return cast("Tree", value) if isinstance(value, dict) else {}


def code_layer(settings: object, origin: str) -> Layer:
    """Return a layer of settings given from code, mappings copied.

    Raises:
        ConfigurationError: A key is not text, or a table is something else.
    """
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{origin} takes a mapping, not {type(settings).__name__}")
    return normalised(_copied(settings, origin, ()), origin)


def _copied(settings: Mapping[object, object], origin: str, above: Keys) -> Tree:
    copy: Tree = {}
    # Relative paths given from code mean the directory of that moment, not of first use.
    folder = working_directory()
    for key, value in settings.items():
        if not isinstance(key, str):
            where = dotted(above) or "settings"
            raise ConfigurationError(f"{where} ({origin}): key {key!r} is not text")
        if isinstance(value, Mapping):
            copy[key] = _copied(value, origin, (*above, key))
        else:
            copy[key] = located(value, folder)
    return copy


def normalised(values: Tree, origin: str, origins: dict[Keys, str] | None = None) -> Layer:
    """Return a layer whose `tasks` and dispatchers are tables.

    Raises:
        ConfigurationError: A table is something else.
    """
    given = Layer(values, origin, origins)
    values = dict(values)
    # As a list, `tasks` names modules to import; as a table, settings of tasks by name.
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
    """Return a dispatcher's table; a text is short for its backend."""
    if isinstance(value, str):
        return {"backend": value}
    return dict(_items(layer, value, "targets", target, alias))


def _items(layer: Layer, value: object, *keys: str) -> list[tuple[str, object]]:
    """Return the items of a table."""
    if isinstance(value, dict):
        return list(value.items())
    kind = "text" if isinstance(value, str) else type(value).__name__
    raise ConfigurationError(
        f"{dotted(keys)} ({layer.origin_of(keys)}): must be a table, not {kind}"
    )
