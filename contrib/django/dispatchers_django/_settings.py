"""`settings.DISPATCHERS`, in the shape of `CACHES`, as a source of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from dispatchers import ConfigurationError
from dispatchers.frameworks import reload, use_settings

from . import _isolation

__all__ = ["NAME", "REST", "SETUP", "TARGET", "follow", "install", "source"]

NAME = "DISPATCHERS"
"""The dispatchers by alias: `BACKEND` and `OPTIONS`."""
REST = "DISPATCHERS_SETTINGS"
"""Everything else, in the shape of `dispatchers.toml`: `endpoint`, `tasks`, `hooks` ..."""
TARGET = "django"
"""The settings module is the target, and this is what it is called."""
SETUP = "dispatchers_django.setup"
"""The module that a worker imports, so that Django is set up and the tasks are known."""
KEYS = ("BACKEND", "OPTIONS")


def install() -> None:
    """Let the settings take part."""
    use_settings(source, f"settings.{NAME}")


def follow(*, setting: str, enter: bool = True, **_: object) -> None:
    """Read them again when a test overrides any setting: others may be computed from it.

    Dispatchers whose settings stay the same go on.
    """
    if setting == NAME:
        _isolation.overridden(enter=enter)
    reload()


def source() -> Mapping[str, object] | None:
    """The settings in the shape of `dispatchers.toml`; None where there are none.

    Raises:
        ConfigurationError: They have another shape.
    """
    aliases, rest = getattr(settings, NAME, None), getattr(settings, REST, None)
    if aliases is None and rest is None:
        return None
    found: dict[str, Any] = {**_mapping(rest or {}, REST)}
    # First: it sets Django up, before which no application's module can be imported.
    found["modules"] = [SETUP, *_modules(found)]
    if aliases is not None:
        # Only where `DISPATCHERS` is set: without it, the rest may bring its own targets.
        _only_in(found, "target", "targets")
        tables = {alias: _table(alias, given) for alias, given in _mapping(aliases, NAME).items()}
        found |= {"target": TARGET, "targets": {TARGET: tables}}
    return found


def _modules(rest: dict[str, Any]) -> list[str]:
    """The modules that are named; a list of `tasks` names them, too."""
    listed = rest.pop("tasks") if isinstance(rest.get("tasks"), list | tuple) else []
    return [*listed, *rest.pop("modules", [])]


def _only_in(rest: Mapping[str, object], *names: str) -> None:
    for name in names:
        if name in rest:
            raise ConfigurationError(
                f"settings.{REST} has {name!r}: the settings module is the target, "
                f"so its dispatchers stand in settings.{NAME}"
            )


def _table(alias: str, given: object) -> dict[str, object]:
    """One dispatcher as the core has it: its backend beside its options."""
    table = _mapping(given, f"{NAME}[{alias!r}]")
    # Before the values: an option beside `OPTIONS` would be ignored without a word.
    for key in table:
        if key not in KEYS:
            raise ConfigurationError(
                f"settings.{NAME}[{alias!r}] has {key!r}: it takes 'BACKEND' and 'OPTIONS', "
                "and a backend's options stand in OPTIONS"
            )
    options = _mapping(table.get("OPTIONS", {}), f"{NAME}[{alias!r}]['OPTIONS']")
    if "BACKEND" not in table:
        raise ConfigurationError(
            f"settings.{NAME}[{alias!r}] has no 'BACKEND': name one, such as 'inline' or 'celery'"
        )
    return {**options, "backend": table["BACKEND"]}


def _mapping(value: object, place: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigurationError(f"settings.{place} must be a mapping, not {type(value).__name__}")
