"""The screen with tables and colours: `pip install 'dispatchers[cli]'`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ._bar import Bar
from ._screen import Rows, Screen

__all__ = ["RichScreen"]

GOOD = ("ok", "installed", "executed", "accepted", "duplicate", "deferred", "replayed", "deleted")
DOUBTFUL = ("missing", "warning", "unknown")
BAD = ("broken", "conflict", "error", "rejected", "failed", "kept")
STYLES = {
    **dict.fromkeys(GOOD, "green"),
    **dict.fromkeys(DOUBTFUL, "yellow"),
    **dict.fromkeys(BAD, "bold red"),
}
"""Words that a cell may consist of."""


class RichScreen(Screen):
    """Screen that writes through rich."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        super().__init__(out, err)
        self._console = Console(file=out, highlight=False)
        self._errors = Console(file=err, highlight=False, stderr=True)

    def line(self, text: str = "", style: str = "") -> None:
        """One line of the result."""
        # As `Text`: square brackets in a message would be read as markup.
        self._console.print(Text(text, style=style), soft_wrap=True)

    def heading(self, text: str) -> None:
        """A line above what belongs together."""
        self._console.print(Text(text, style="bold"))

    def code(self, text: str) -> None:
        """Python code, in colours."""
        syntax = Syntax(text.strip("\n"), "python", theme="ansi_dark", background_color="default")
        self._console.print(Padding(syntax, (0, 4)))

    def table(self, columns: Sequence[str], rows: Rows) -> None:
        """Rows of text under their columns."""
        found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        cells = list(rows)
        for number, column in enumerate(columns):
            whole = number == 0 and self._has_room(row[0] for row in cells)
            # Folded, never cut: an id that is shortened cannot be copied.
            found.add_column(column, overflow="fold", no_wrap=whole)
        for row in cells:
            found.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        self._console.print(found)

    def fields(self, values: Mapping[str, str]) -> None:
        """Names and what they are, one per line."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=self._has_room(values), overflow="fold", style="cyan")
        grid.add_column(overflow="fold")
        for name, value in values.items():
            grid.add_row(name, Text(value, style=STYLES.get(value, "")))
        self._console.print(Padding(grid, (0, 0, 0, 2)))

    def _has_room(self, cells: Iterable[str]) -> bool:
        """Tell whether a column can stay in one line; else those beside it would have no width."""
        return max(map(cell_len, cells), default=0) <= self._console.width // 2

    def problem(self, text: str) -> None:
        """Something that is wrong."""
        self._errors.print(Text.assemble(("dispatchers: ", "bold red"), text), soft_wrap=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Generator[Bar]:
        """A bar that shows how far something is."""
        words = TextColumn("{task.description}"), TextColumn("{task.fields[words]}")
        with Progress(
            words[0], BarColumn(), MofNCompleteColumn(), words[1], console=self._console
        ) as progress:
            yield _RichBar(progress, progress.add_task(label, total=total, words=""))


class _RichBar:
    """One task of rich's progress."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, done: int, text: str = "") -> None:
        """Say how many of all are done, and a few words."""
        self._progress.update(self._task, completed=done, words=text)

    def end(self) -> None:
        """End the output."""
