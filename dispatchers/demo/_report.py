"""Texts that the demo shows before and after a run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import NamedTuple

from dispatchers.cli._durations import spoken
from dispatchers.cli._screen import Screen

from . import tasks
from ._folder import Folder
from ._index import Found
from .tasks import index_file

__all__ = ["Figures", "introduce", "report"]

CALL = """
request = index_file.options(idempotency_key=path).request(path=path, index=index)
response = get_dispatcher().dispatch(request)   # or many at once: dispatch_many(requests)
if error := response.error: ...                 # it never raises, and never hangs
"""
ORDINALS = {1: "first", 2: "second", 3: "third"}


class Figures(NamedTuple):
    """Counts of a run."""

    total: int
    """Files, the poisoned one included."""
    accepted: int
    duplicates: int
    dispatching: float
    """Seconds."""
    working: float
    """Seconds."""
    dead: int
    found: Found
    before: int = 0
    """Files that an interrupted run had indexed."""
    workers: int = 1

    @property
    def lost(self) -> int:
        """Files that are neither in the index nor a dead letter."""
        # Counted from the results, not from the answers: this is what the demo is to prove.
        return self.total - self.found.files - self.dead


def introduce(shown: Screen, folder: Folder, files: int, before: int | None) -> None:
    """Say what is going to happen."""
    shown.heading("A task is a function:")
    # The very code that runs, so that the text cannot lag behind it.
    shown.code(inspect.getsource(index_file.function))
    shown.line()
    shown.heading("Dispatching it hands it over, and says what became of that:")
    shown.code(CALL)
    shown.line()
    shown.line(f"{files} files of the standard library, a task for each; one more is poisoned.")
    shown.line(f"Everything is in {folder.path}")
    if before is not None:
        shown.line(
            f"An earlier run was interrupted with {before} files indexed: going on.", "yellow"
        )
    shown.line("Kill it half-way if you like, and start it again: it goes on where it was.")
    shown.line()


def report(shown: Screen, folder: Folder, figures: Figures) -> None:
    """Say what became of it."""
    _say_handed_over(shown, figures)
    _say_done(shown, figures)
    _say_found(shown, figures.found)
    _say_next(shown, folder)


def _say_handed_over(shown: Screen, figures: Figures) -> None:
    shown.line()
    shown.heading("What the dispatches answered")
    both = figures.accepted + figures.duplicates
    rows = [
        ("accepted", _number(figures.accepted), "in the queue, on the disk"),
        ("duplicate", _number(figures.duplicates), "the queue had it from the run before"),
    ]
    shown.table(("status", "files", "meaning"), [row for row in rows if row[1] != "0"])
    shown.line(_pace(both, figures.dispatching))


def _say_done(shown: Screen, figures: Figures) -> None:
    shown.line()
    shown.heading("What became of them")
    rows = [
        (f"indexed in the {ORDINALS.get(attempt, str(attempt))} attempt", _number(count))
        for attempt, count in figures.found.attempts.items()
    ]
    rows += [
        ("dead letters, after three attempts", _number(figures.dead)),
        ("lost", _number(figures.lost)),
    ]
    shown.table(("outcome", "files"), rows)
    done = figures.found.files - figures.before
    workers = f"{figures.workers} worker process{'es' if figures.workers > 1 else ''}"
    shown.line(f"{_pace(done, figures.working)}, {workers}")
    if figures.found.rewritten:
        shown.line(
            f"{figures.found.rewritten} ran twice, as a worker was killed before it could say that "
            "they were done; the index has each of them once."
        )


def _say_found(shown: Screen, found: Found) -> None:
    shown.line()
    shown.heading("What they found")
    path, lines = found.longest
    shown.fields(
        {
            "files": _number(found.files),
            "lines": _number(found.lines),
            "words": _number(found.words),
            "defined": f"{_number(found.functions)} functions, {_number(found.classes)} classes",
            "called most": ", ".join(f"{name} ({_number(n)})" for name, n in found.called),
            "longest file": f"{'/'.join(Path(path).parts[-2:])} ({_number(lines)} lines)",
        }
    )


def _say_next(shown: Screen, folder: Folder) -> None:
    program = f"dispatchers --config {folder.configuration}"
    shown.line()
    shown.heading("What to do next")
    shown.fields(
        {
            "look at the poisoned file": f"{program} dead list",
            "read what a failure leads to": f"{program} explain",
            "see which queues there are": "dispatchers list",
            "look at the task": tasks.__file__,
        }
    )


def _number(value: int) -> str:
    return f"{value:,}"


def _pace(count: int, seconds: float) -> str:
    rate = f", {_number(round(count / seconds))} a second" if seconds else ""
    return f"{_number(count)} in {spoken(seconds)}{rate}"
