"""Surroundings of a command: target, module path, quiet logs."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from dispatchers._config.api import current, reload, state
from dispatchers._config.files import CONFIG, PROJECT_FILE, file_layer
from dispatchers._errors import ConfigurationError
from dispatchers._runtime import importing as _library
from dispatchers._runtime.importing import cause, imported

__all__ = ["file_in_force", "import_modules", "selected", "selected_target", "variables"]

TARGET = "DISPATCHERS_TARGET"


@contextmanager
def variables(values: Mapping[str, str | None]) -> Generator[None]:
    """Set environment variables for a while; None unsets."""
    before = {name: os.environ.get(name) for name in values}
    # Nothing changes, so that nothing has to be read again.
    if before == values:
        yield
        return
    _put(values)
    reload()
    try:
        yield
    finally:
        _put(before)
        reload()


def _put(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def selected(*, config: str | None, target: str | None, logs: bool) -> Generator[None]:
    """Run with the file and the target of the command line.

    They are set as variables, so that the worker processes which a command starts see them too.

    Args:
        config: The file, None for the one there is.

        target: The target, None for the selected one.

        logs: Let the library's records reach standard error by default.
    """
    # Absolute: a process that is started elsewhere must read the same file.
    given = {CONFIG: config and str(Path(config).absolute()), TARGET: target}
    chosen = {name: value for name, value in given.items() if value is not None}
    quiet = contextlib.nullcontext() if logs else _quiet()
    with variables(chosen), _module_path(), quiet:
        yield


@contextmanager
def _module_path() -> Generator[None]:
    """Import modules from the working directory and the configuration's folder."""
    before = list(sys.path)
    # In front, as `python -m` does, so that the project's modules win.
    sys.path[:0] = [folder for folder in _folders() if folder not in map(_absolute, sys.path)]
    try:
        yield
    finally:
        sys.path[:] = before


def _folders() -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError):
        found.append(str(Path.cwd()))
    with contextlib.suppress(ConfigurationError):
        if (file := file_in_force()) is not None:
            found.append(str(file.absolute().parent))
    return list(dict.fromkeys(found))


def _absolute(folder: str) -> str:
    return str(Path(folder or ".").absolute())


def file_in_force() -> Path | None:
    """The configuration file that is read, if there is one.

    Raises:
        ConfigurationError: It cannot be read.
    """
    layer = file_layer(os.environ)
    if not layer.origins and not Path(layer.origin).name.endswith((".toml", PROJECT_FILE)):
        return None
    return Path(layer.origin)


@contextmanager
def _quiet() -> Generator[None]:
    """Keep the library's records off an unconfigured terminal.

    The commands say by themselves what the records would.
    """
    log = logging.getLogger("dispatchers")
    handler = logging.NullHandler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def import_modules(more: Iterable[str] = ()) -> None:
    """Import the task modules of the configuration, and more.

    Raises:
        ConfigurationError: One cannot be imported; the message has the cause and its place.
    """
    # Each once, in the order given: the first may set a framework up for the rest.
    for module in dict.fromkeys([*current().modules, *more]):
        try:
            imported(module)
        except Exception as exc:
            raise ConfigurationError(
                f"importing the task module {module!r} raised {cause(exc)}{_place(exc)}"
            ) from exc


def _place(exc: BaseException) -> str:
    """The innermost line outside of the import machinery."""
    frames = _frames(exc.__traceback__)
    ours = {__file__, _library.__file__}
    # The user's line: the innermost frame is often the import system's, or this function's.
    known = [f for f in frames if "importlib" not in f.filename and f.filename not in ours]
    return f" ({known[-1].filename}:{known[-1].lineno})" if known else ""


def _frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(trace))


def selected_target(wanted: str | None = None) -> str | None:
    """The selected target; None where nothing is configured at all.

    Raises:
        ConfigurationError: None is selected, or code selects another than the command line.
    """
    found = state.snapshot.configuration.target()
    if wanted is not None and found != wanted:
        raise ConfigurationError(
            f"--target {wanted!r} has no effect: code selects {found!r} by configure(target=...)"
        )
    return found
