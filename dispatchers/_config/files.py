"""Settings from a file and from a framework."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dispatchers._config.layers import CONFIG, Layer, Tree, code_layer, normalised, table_of
from dispatchers._errors import ConfigurationError
from dispatchers._models.paths import located
from dispatchers._runtime.importing import cause

__all__ = [
    "CONFIG",
    "FILE",
    "PROJECT_FILE",
    "file_layer",
    "foreign",
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
    """Read the framework's settings.

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
    """Read the file that `DISPATCHERS_CONFIG` names, else the nearest one of the project.

    Raises:
        ConfigurationError: It is not there, cannot be read, is another user's, or is not TOML.
    """
    if named := environ.get(CONFIG):
        path = Path(named)
        return _named(path.parent.resolve() / path.name)
    try:
        # The working directory may have been deleted: then there is no file to look for.
        start = Path.cwd()
    except OSError:
        return Layer({})
    found = (layer for folder in _searched(start) if (layer := _in(folder)) is not None)
    return next(found, Layer({}))


def _searched(start: Path) -> Iterator[Path]:
    """Return the folders from here up to the project's root.

    The root is where `.git` is, else where the nearest pyproject.toml is: a package within a
    repository finds the repository's file.
    """
    # Beyond the root the file would be another project's, or anyone's in a shared folder.
    home, upwards = _home(), (start, *start.parents)
    marks = (".git", PROJECT_FILE)
    roots = (each for mark in marks for each in upwards if _is_there(each / mark))
    root = next(roots, None)
    for folder in upwards:
        yield folder
        if folder in (home, root):
            return


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry, as in containers
        return None


def _named(path: Path) -> Layer:
    values = _parsed(_read(path, f"variable {CONFIG}: "), path)
    if path.name != PROJECT_FILE:
        return _layer(values, path)
    own = _own_table(values, path)
    if own is None:
        raise ConfigurationError(f"variable {CONFIG}: {path} has no table [tool.dispatchers]")
    return _layer(own, path)


def _layer(values: Tree, path: Path) -> Layer:
    """Return a file's settings, its relative paths tied to its folder."""
    return normalised(located(values, str(path.parent)), str(path))


def _in(folder: Path) -> Layer | None:
    """Return the settings in a folder's file; None if there is none."""
    path = folder / FILE
    project = _project(folder / PROJECT_FILE)
    if not _is_there(path):
        return project
    if project is not None:
        raise ConfigurationError(
            f"{path} and [tool.dispatchers] in {project.origin} both configure: keep one of them"
        )
    _refuse_foreign(path)
    return _layer(_parsed(_read(path), path), path)


def _project(path: Path) -> Layer | None:
    """Return the table in a pyproject.toml, parsed only if it names us."""
    if not _is_file(path):
        return None
    text = _read(path)
    # Parsing takes milliseconds, and most projects' files do not name us.
    if b"dispatchers" not in text:
        return None
    own = _own_table(_parsed(text, path), path)
    if own is None:
        return None
    _refuse_foreign(path)
    return _layer(own, path)


def _own_table(values: Tree, path: Path) -> Tree | None:
    own = table_of(values.get("tool")).get("dispatchers")
    if own is None or isinstance(own, dict):
        return own
    raise ConfigurationError(
        f"tool.dispatchers ({path}): must be a table, not {type(own).__name__}"
    )


def _refuse_foreign(path: Path) -> None:
    """Refuse a file that another user may have written.

    Raises:
        ConfigurationError: It could take the work of this program elsewhere.
    """
    if (doubt := foreign(path)) is not None:
        raise ConfigurationError(
            f"{path} {doubt}, who could take this program's work: "
            f"change that, or trust it by its name: {CONFIG}={path}"
        )


def foreign(path: Path) -> str | None:
    """Say why a file is not to be trusted; None if it is."""
    if not hasattr(os, "geteuid"):
        return None
    try:
        # The link and its target: the owner of either decides what is read.
        seen = (path.lstat(), path.stat())
    except OSError:
        return None
    if other := {each.st_uid for each in seen} - _trusted_owners():
        return f"belongs to another user, {_user(min(other))}"
    # A group that may write is trusted: many systems give each user a group, and umask 002.
    if seen[1].st_mode & stat.S_IWOTH:
        return f"can be written by every user (mode {stat.S_IMODE(seen[1].st_mode):04o})"
    return None


def _trusted_owners() -> set[int]:
    """Return this user, root, and the caller of sudo, as git does."""
    me = os.geteuid()
    sudo = os.environ.get("SUDO_UID", "") if me == 0 else ""
    return {me, 0} | ({int(sudo)} if sudo.isdecimal() else set())


def _user(number: int) -> str:
    import pwd

    try:
        return repr(pwd.getpwuid(number).pw_name)
    except KeyError:
        return str(number)


def _is_there(path: Path) -> bool:
    """Tell whether anything is there, a dangling link included."""
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
    # Reading a pipe would wait for ever; one that was named is what a shell's <(...) gives.
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
        # Editors on Windows begin a file with a byte order mark.
        return tomllib.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
