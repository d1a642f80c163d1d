"""Output of the commands as plain text."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from dispatchers._runtime.importing import import_object

from ._bar import Bar, CountBar, LineBar, SilentBar, TerminalBar

__all__ = ["Screen", "screen"]

Rows = Iterable[Sequence[str]]
GAP = "  "
NARROW = 20
"""Columns that the last column of a table gets at least; below, lines are left to the terminal."""


class Screen:
    """Plain text output; a reader that goes away ends only the output.

    Args:
        out: Where results go; None, as under `pythonw`, is nowhere.

        err: Where problems go.
    """

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        self._out = out or io.StringIO()
        self._err = err or io.StringIO()

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line; the style is for screens with colours."""
        del style
        self._write(self._out, f"{text}\n")

    def heading(self, text: str) -> None:
        """A line above what belongs together."""
        self.line(text)

    def code(self, text: str) -> None:
        """Python code."""
        self.line(textwrap.indent(text.strip("\n"), "    "))

    def table(self, columns: Sequence[str], rows: Rows) -> None:
        """Write rows under their columns, the last one wrapped."""
        cells = [[_flat(cell) for cell in row] for row in rows]
        head = [column.upper() for column in columns]
        widths = [max(map(len, each)) for each in zip(head, *cells, strict=True)]
        for row in (head, *cells):
            self._row(row, widths)

    def fields(self, values: Mapping[str, str]) -> None:
        """Names and what they are, one per line."""
        width = max(map(len, values), default=0) + 1
        for name, value in values.items():
            self._row(["", f"{name}:", _flat(value)], [0, width, 0])

    def json(self, value: object) -> None:
        """A value for programs."""
        self._write(self._out, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def json_list(self, values: Iterable[object]) -> None:
        """Write a list for programs, value by value, to spare memory."""
        # The bracket is written with the first value, so that an empty list is `[]` on one line.
        lead = "["
        for value in values:
            text = json.dumps(value, indent=2, ensure_ascii=False)
            self._write(self._out, f"{lead}\n{textwrap.indent(text, '  ')}")
            lead = ","
        self._write(self._out, "[]\n" if lead == "[" else "\n]\n")

    @contextmanager
    def counting(self, label: str) -> Generator[Bar]:
        """Count something whose number is not known before, on standard error."""
        bar = CountBar(label, self.is_terminal, lambda text: self._write(self._err, text))
        try:
            yield bar
        finally:
            bar.end()

    def raw(self, text: str) -> None:
        """Write a line for programs, whatever the screen leaves out for people."""
        self._write(self._out, f"{text}\n")

    def clear(self) -> None:
        """Clear the terminal; elsewhere write an empty line."""
        self._write(self._out, "\033[H\033[2J" if self.is_terminal else "\n")

    def problem(self, text: str) -> None:
        """Write a problem to standard error."""
        self._write(self._err, f"dispatchers: {text}\n")

    def note(self, text: str) -> None:
        """Write a note to standard error."""
        self._write(self._err, f"{text}\n")

    @contextmanager
    def progress(self, label: str, total: int) -> Generator[Bar]:
        """Show a progress bar; without a terminal, lines now and then."""
        kind = TerminalBar if self.is_terminal else LineBar
        bar = kind(label, total, lambda text: self._write(self._out, text))
        try:
            yield bar
        finally:
            bar.end()

    @property
    def is_terminal(self) -> bool:
        """Tell whether the output is a terminal."""
        try:
            return self._out.isatty()
        except ValueError:  # it was closed
            return False

    def flush(self) -> None:
        """Bring everything to its reader."""
        for stream in (self._out, self._err):
            self._guarded(stream, "")

    def _row(self, cells: Sequence[str], widths: Sequence[int]) -> None:
        start = "".join(f"{c:<{w}}{GAP}" for c, w in zip(cells[:-1], widths[:-1], strict=True))
        room = self._room() - len(start)
        rest = [cells[-1]]
        if NARROW <= room < len(cells[-1]):
            rest = textwrap.wrap(cells[-1], room, break_long_words=False) or [""]
        for number, part in enumerate(rest):
            self.line(f"{start if number == 0 else ' ' * len(start)}{part}".rstrip())

    def _room(self) -> int:
        # Unwrapped in files and pipes, where `grep` wants a row on one line.
        return shutil.get_terminal_size().columns - 1 if self.is_terminal else 10**9

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            self._guarded(stream, text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            # A terminal with another encoding shows escapes rather than nothing.
            self._guarded(stream, text.encode(encoding, "backslashreplace").decode(encoding))

    def _guarded(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except (BrokenPipeError, ValueError) as exc:
            # ValueError: the stream is closed. A reader that goes away, `head` say, is not an
            # error.
            if isinstance(exc, UnicodeError):
                raise
            self._forget(stream)
        except OSError as exc:
            self._forget(stream)
            raise SystemExit(f"dispatchers: the output cannot be written: {exc.strerror}") from None

    def _forget(self, stream: TextIO) -> None:
        """Redirect a closed stream to nowhere, for the flush at exit too."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            # The descriptor itself: Python flushes the stream at exit, and would fail once more.
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        if stream is self._out:
            self._out = io.StringIO()
        else:
            self._err = io.StringIO()


class JsonScreen(Screen):
    """Output that has only JSON in its result."""

    def line(self, text: str = "", style: str = "") -> None:
        """Nothing."""

    @contextmanager
    def progress(self, label: str, total: int) -> Generator[Bar]:
        """Shows nothing."""
        del label, total
        yield SilentBar()


def _flat(text: str) -> str:
    """Return a text on one line, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text.replace("\n", "; "))


def screen(*, plain: bool = False, as_json: bool = False) -> Screen:
    """Return the screen for this process: rich's on a terminal.

    Args:
        plain: Plain text in any case.

        as_json: JSON only.
    """
    if as_json:
        return JsonScreen(sys.stdout, sys.stderr)
    found = Screen(sys.stdout, sys.stderr)
    if plain or not found.is_terminal or os.environ.get("TERM") == "dumb":
        return found
    try:
        rich: Any = import_object("dispatchers.cli._rich:RichScreen")
    except ImportError:
        return found
    screen: Screen = rich(sys.stdout, sys.stderr)
    return screen
