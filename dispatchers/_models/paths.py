"""Paths in options: made absolute once, when they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, BeforeValidator

SQLITE = "sqlite:"


class LocatedText(str):
    """Text of a setting, and the folder that a relative path in it starts from."""

    __slots__ = ("folder",)

    folder: str

    def __new__(cls, text: str, folder: str = "") -> Self:
        """Keep the text with its folder."""
        found = super().__new__(cls, text)
        found.folder = folder
        return found

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Copies and pickles are plain text: the folder means nothing elsewhere."""
        return str, (str(self),)


def _absolute(value: object) -> object:
    """Make a path absolute: from home, from its file's folder, or from the working directory."""
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    if not isinstance(value, str) or not value or value.startswith(":memory:"):
        return value
    if "\0" in value:
        raise ValueError("has a NUL character, which no path may hold")
    # Not `resolve`: a link may be meant to be followed only when the file is opened.
    return str(Path(_folder(value), os.path.expanduser(value)).absolute())  # noqa: PTH111 - raises


def _folder(value: str) -> str:
    return value.folder if isinstance(value, LocatedText) else ""


def absolute_spec(value: object) -> object:
    """Make the path of a store absolute; other stores are named as they are."""
    if not isinstance(value, str) or not value.startswith(SQLITE):
        return value
    path = LocatedText(value.removeprefix(SQLITE), _folder(value))
    return f"{SQLITE}{_absolute(path)}" if path else value


class _Marker:
    """Marks the options that name a file, for `paths_in`."""


FilePath = Annotated[str, BeforeValidator(_absolute), _Marker()]
"""The path of a file, for a backend's options: relative to the configuration file that has it, else
to the working directory when it is read; absolute from then on."""


StoreSpec = Annotated[str, BeforeValidator(absolute_spec), _Marker()]
"""A store: `memory`, `sqlite:PATH`, `redis://HOST/DB` or `module:attribute`."""


def paths_in(options: BaseModel) -> dict[str, str]:
    """Return the options that name a file of their own, `path` for one, with their values."""
    return {
        name: value
        for name, field in type(options).model_fields.items()
        if isinstance(value := getattr(options, name), str)
        and _is_marked((*field.metadata, field.annotation))
        and not _is_other_store(value)
    }


def _is_marked(parts: Iterable[object]) -> bool:
    """Tell whether a type, or a member of its union, is the path of a file."""
    return any(
        isinstance(each, _Marker)
        or _is_marked(getattr(each, "__metadata__", ()))
        or _is_marked(get_args(each))
        for each in parts
    )


def _is_other_store(value: str) -> bool:
    return not Path(value.removeprefix(SQLITE)).is_absolute()


def located(value: Any, folder: str) -> Any:
    """Return a copy of a setting whose texts know the folder they were read in."""
    match value:
        case LocatedText():
            return value
        case str():
            return LocatedText(value, folder)
        case dict():
            return {key: located(inner, folder) for key, inner in value.items()}
        case list():
            return [located(inner, folder) for inner in value]
        case _:
            return value


def working_directory() -> str:
    """Return the working directory; nothing where it has been removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - a path is not wanted
    except OSError:
        return ""
