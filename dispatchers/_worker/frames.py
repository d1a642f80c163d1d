"""The frames of a failed run: file, line and function, never a value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from dispatchers._dispatch.error_mapping import readable, type_name

__all__ = ["frames_of", "place_in_task"]

MAX_FRAMES = 100
"""Of one exception; of a deeper one the outermost and the innermost halves are kept."""

MAX_CAUSES = 10
"""Exceptions of one chain whose frames are kept."""

INSTALLED = ("site-packages", "dist-packages")
LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - pathlib would be an import
CORE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120


class Frame(NamedTuple):
    """A frame that was left by an exception."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return readable(f"{self.file}:{self.line} in {self.function}")

    @property
    def is_own(self) -> bool:
        """Tell whether it is the application's code, and no library's."""
        if any(f"{os.sep}{name}{os.sep}" in self.file for name in INSTALLED):
            return False
        return not (self.file.startswith((LIBRARY, "<")))


def place_in_task(exc: BaseException) -> str:
    """Return where the application's code failed, and where below it the exception was raised.

    Of a group, the first exception in it is told, too: the group itself is raised by a library.
    """
    first, place = _first_of(exc), _place(_frames(exc))
    if first is exc:
        return place
    # One that was made and never raised has no place.
    where = f" at {inner}" if (inner := _place(_frames(first))) else ""
    return f"{place}; its first is {type_name(first)}{where}"


def _first_of(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _place(frames: list[Frame]) -> str:
    if not frames:
        return ""
    own = next((frame for frame in reversed(frames) if frame.is_own), frames[0])
    return str(own) if own is frames[-1] else f"{own}, raised at {frames[-1]}"


def frames_of(exc: BaseException) -> tuple[str, ...]:
    """Return the frames of an exception, its parts and its causes, each outermost first."""
    lines: list[str] = []
    for each in _chain(exc):
        lines.append(f"{type_name(each)}:")
        lines += map(str, _shortened(_frames(each)))
    return tuple(lines)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    rest = [exc]
    while rest and len(seen) < MAX_CAUSES:
        current = rest.pop()
        if id(current) in seen:
            continue
        yield current
        seen.add(id(current))
        if (cause := _cause_of(current)) is not None:
            rest.append(cause)
        # The parts have the frames that matter; the group's own are a library's.
        if isinstance(current, BaseExceptionGroup):
            rest += reversed(current.exceptions)


def _cause_of(exc: BaseException) -> BaseException | None:
    if exc.__cause__ is not None or exc.__suppress_context__:
        return exc.__cause__
    return exc.__context__


def _frames(exc: BaseException) -> list[Frame]:
    """Return the frames below the core's own, outermost first."""
    frames = list(_walk(exc.__traceback__))
    # The core's frames are above those of every task, and say nothing about it.
    first = next((i for i, each in enumerate(frames) if not each.file.startswith(CORE)), 0)
    return frames[first:]


def _walk(traceback: TracebackType | None) -> Iterator[Frame]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield Frame(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next


def _shortened(frames: list[Frame]) -> list[Frame]:
    half = MAX_FRAMES // 2
    return frames if len(frames) <= MAX_FRAMES else frames[:half] + frames[-half:]
