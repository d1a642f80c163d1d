"""Progress bars in plain text."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from time import monotonic
from typing import Protocol

__all__ = ["Bar", "CountBar", "LineBar", "SilentBar", "TerminalBar"]

BETWEEN_LINES = 2.0
"""Seconds between two lines in a log file."""

BETWEEN_PICTURES = 0.1
"""Seconds between two counts on a terminal."""


class Bar(Protocol):
    """Progress of something."""

    def show(self, done: int, text: str = "") -> None:
        """Say how many of all are done, and a few words."""
        ...

    def end(self) -> None:
        """End the output."""
        ...


class SilentBar:
    """Shows nothing."""

    def show(self, done: int, text: str = "") -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class LineBar:
    """A line now and then, for logs and pipes."""

    def __init__(self, label: str, total: int, write: Callable[[str], None]) -> None:
        self._label = label
        self._total = total
        self._write = write
        self._next = 0.0
        self._last = ""

    def show(self, done: int, text: str = "") -> None:
        """Say it, unless a line has just been written."""
        line = f"{self._label} {done}/{self._total}  {text}".rstrip()
        self._last = line
        if monotonic() >= self._next:
            self._say(line)

    def end(self) -> None:
        """Say how far it came."""
        if self._last:
            self._say(self._last)

    def _say(self, line: str) -> None:
        self._next = monotonic() + BETWEEN_LINES
        self._last = ""
        self._write(f"{line}\n")


class CountBar:
    """Count that is rewritten on a terminal, else a line now and then."""

    def __init__(self, label: str, terminal: bool, write: Callable[[str], None]) -> None:
        self._label = label
        self._terminal = terminal
        self._write = write
        # Not at once: what is done in a moment needs no count.
        self._next = monotonic() + BETWEEN_LINES
        self._shown = False

    def show(self, done: int, text: str = "") -> None:
        """Write the count, unless one has just been written."""
        if monotonic() < self._next:
            return
        self._next = monotonic() + (BETWEEN_PICTURES if self._terminal else BETWEEN_LINES)
        self._shown = True
        line = f"{self._label}: {done}{text and '  '}{text}"
        self._write(f"\r{line}" if self._terminal else f"{line}\n")

    def end(self) -> None:
        """Leave the line as it is."""
        if self._shown and self._terminal:
            self._write("\n")


class TerminalBar:
    """One line that is written again and again."""

    def __init__(self, label: str, total: int, write: Callable[[str], None]) -> None:
        self._label = label
        self._total = total
        self._write = write
        self._shown = False

    def show(self, done: int, text: str = "") -> None:
        """Write the line again."""
        # One column less: a full line wraps on some terminals, and could not be rewritten.
        room = shutil.get_terminal_size().columns - 1
        line = f"{self._label} [{self._bar(done)}] {done}/{self._total}  {text}"
        self._shown = True
        self._write(f"\r{line[:room]:<{room}}")

    def end(self) -> None:
        """Leave the line as it is."""
        if self._shown:
            self._write("\n")

    def _bar(self, done: int, width: int = 24) -> str:
        full = width * min(done, self._total) // max(self._total, 1)
        # Bounded above: more may be done than was announced.
        return "#" * full + "." * (width - full)
