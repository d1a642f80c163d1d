"""Where settings come from besides code and environment: a file, and a framework's settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ._errors import ConfigurationError
from ._layers import CONFIG, Layer, Tree, code_layer, normalised, table_of
from ._library import cause

__all__ = [
    "CONFIG",
    "FILE",
    "PROJECT_FILE",
    "file_layer",
    "framework_layer",
    "set_framework_source",
]

FILE = "dispatchers.toml"
PROJECT_FILE = "pyproject.toml"

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
    own = _own_table(values, path)
    if own is None:
        raise ConfigurationError(f"variable {CONFIG}: {path} has no table [tool.dispatchers]")
    return normalised(own, str(path))


def _in(folder: Path) -> Layer | None:
    """What a folder's own file says; None if it has none."""
    path = folder / FILE
    project = _project(folder / PROJECT_FILE)
    if not _is_there(path):
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
    own = _own_table(_parsed(text, path), path)
    return None if own is None else normalised(own, str(path))


def _own_table(values: Tree, path: Path) -> Tree | None:
    own = table_of(values.get("tool")).get("dispatchers")
    if own is None or isinstance(own, dict):
        return own
    raise ConfigurationError(
        f"tool.dispatchers ({path}): must be a table, not {type(own).__name__}"
    )


def _is_there(path: Path) -> bool:
    """Whether somebody put it there: a dangling link, or a folder of that name, is a mistake."""
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _read(path: Path, why: str = "") -> bytes:
    if path.is_fifo() and not why:
        raise ConfigurationError(f"{path} cannot be read: it is a pipe")
    try:
        return path.read_bytes()
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
        raise ConfigurationError(f"{why}{path} cannot be read: {reason}") from exc


def _parsed(text: bytes, path: Path) -> Tree:
    import tomllib

    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
