"""`dispatchers dev`: what stands in for a cloud on this machine."""

from __future__ import annotations

import argparse
import inspect
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from dispatchers._errors import ConfigurationError, nearest
from dispatchers._worker.signals import StopFlag, stopped_by_signals

from ._arguments import add_command, meant
from ._exit import Exit
from ._screen import Screen

__all__ = ["GROUP", "DevService", "add"]

GROUP = "dispatchers.dev"
READY = "# ready"
TEXT = """
Start stand-ins for services that this machine does not have, and print the settings to export.

Each installed adapter that brings a stand-in has a name, `cloud_tasks` say; none named are all.
What a stand-in takes as key=value stands in its adapter's README. Ctrl-C ends it, and what it
holds is there when it is started again.
"""


class DevService(Protocol):
    """Class that an entry point of the group `dispatchers.dev` names."""

    def __init__(self, folder: Path, **options: Any) -> None:
        """Prepare; `folder` is this service's own, and may not exist yet.

        Raises:
            TypeError, ValueError: An option is unknown or does not fit.

            OSError: A port is taken.
        """

    @property
    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """Return environment variables, grouped by the processes they are for."""
        ...

    def start(self) -> None:
        """Begin, and return when it answers."""

    def stop(self) -> None:
        """End."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "dev", run, TEXT, as_json=True)
    parser.add_argument("words", metavar="NAME|key=value", nargs="*", help="which, and its options")
    parser.add_argument(
        "--dir", metavar="DIR", default=".dispatchers", help="where their files are kept"
    )


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Run until told to stop."""
    names, options = _meant(args.words)
    chosen = _chosen(names)
    if options and len(chosen) > 1:
        raise ConfigurationError(f"options for which of {', '.join(chosen)}? name one of them")
    ended = _Ended()
    with ExitStack() as stack:
        stack.enter_context(stopped_by_signals(ended.stop))
        for name, point in chosen.items():
            # On the stack, one by one: a later one that fails to start stops those before it.
            service = stack.enter_context(_started(name, point, Path(args.dir) / name, options))
            _show(service.settings, shown, as_json=args.json)
        # A last line of the result, so that a script which reads it knows when to go on.
        shown.line("" if args.json else READY)
        shown.note(f"running: {', '.join(chosen)}; stop with Ctrl-C")
        ended.wait()
    return Exit.OK


class _Ended:
    """Told by a signal."""

    def __init__(self) -> None:
        self._event = StopFlag()

    def run(self) -> int:
        """Wait."""
        self.wait()
        return 0

    def stop(self) -> None:
        """Wait no longer."""
        self._event.set()

    def wait(self) -> None:
        """Wait in short turns, as endless waits delay signals on some systems."""
        while not self._event.wait(0.5):
            pass


def _meant(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    names = [word for word in words if "=" not in word]
    pairs = [word.partition("=") for word in words if "=" in word]
    return names, meant([(key, value) for key, _, value in pairs])


def _chosen(names: Sequence[str]) -> dict[str, metadata.EntryPoint]:
    found = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if not found:
        raise ConfigurationError("no installed adapter brings a stand-in")
    for name in names:
        if name not in found:
            raise ConfigurationError(f"no stand-in {name!r}{nearest(name, found)}")
    return {name: found[name] for name in names or sorted(found)}


@contextmanager
def _started(
    name: str, point: metadata.EntryPoint, folder: Path, options: Mapping[str, Any]
) -> Generator[DevService]:
    try:
        # Within the `try`: loading imports the adapter, and its library may be missing.
        make: Callable[..., DevService] = point.load()
        _refuse_unknown(name, make, options)
        service = make(folder, **options)
    except ImportError as exc:
        raise ConfigurationError(
            f"stand-in {name!r} lacks a library ({exc}): pip install 'dispatchers[{name}]'"
        ) from exc
    except ValidationError as exc:
        said = "; ".join(f"{_place(each['loc'])}: {each['msg']}" for each in exc.errors())
        raise ConfigurationError(f"stand-in {name!r}: {said}") from None  # it quotes the token
    except (TypeError, ValueError, OSError, RuntimeError) as exc:
        raise ConfigurationError(f"stand-in {name!r}: {exc}") from exc
    service.start()
    try:
        yield service
    finally:
        service.stop()


def _refuse_unknown(name: str, make: Callable[..., object], options: Mapping[str, Any]) -> None:
    known = inspect.signature(make).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values()):
        return
    names = [each for each in known if each != "folder"]
    for option in options:
        if option not in names:
            raise ConfigurationError(
                f"stand-in {name!r} has no option {option!r}{nearest(option, names)}"
            )


def _place(keys: tuple[int | str, ...]) -> str:
    return ".".join(map(str, keys))


def _show(settings: Mapping[str, Mapping[str, str]], shown: Screen, *, as_json: bool) -> None:
    if as_json:
        shown.json({group: dict(values) for group, values in settings.items()})
        return
    for group, values in settings.items():
        shown.line(f"# {group}")
        for name, value in values.items():
            # Quoted: a shell reads it.
            shown.line(f"export {name}={shlex.quote(value)}")
