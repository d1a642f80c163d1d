"""Second half of the demo: a workflow whose worker is killed half-way."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dispatchers import ConfigurationError
from dispatchers._journal.loading import journal
from dispatchers._journal.values import EntryKind
from dispatchers.cli._bar import Bar
from dispatchers.cli._durations import spoken
from dispatchers.cli._exit import Exit
from dispatchers.cli._screen import Screen
from dispatchers.cli._surroundings import variables

from . import flows
from ._flow_folder import FlowFolder, Run
from ._folder import ours_only
from ._worker import DemoWorker
from .flows import packages, survey

__all__ = ["run_flow"]

PACKAGES = 24
"""Packages whose lines are counted, one after the other."""
LARGEST = 4
"""Packages whose classes are counted, at once."""
KEY = "survey"
LOOK = 0.02
LONGEST = 120.0
"""Seconds after which something must be wrong."""


class Figures(NamedTuple):
    """Counts of a run."""

    steps: int
    """Steps that the workflow has."""
    killed: int
    """The process id of the worker that was killed."""
    runs: list[Run]
    recorded: int
    """Answers in the journal."""
    gap: float
    """Seconds between the kill and the next run of a step."""
    result: dict[str, int]

    @property
    def times(self) -> Counter[int]:
        """Return how many steps ran once, how many twice ..."""
        return Counter(Counter(run.step for run in self.runs).values())

    @property
    def lost(self) -> int:
        """Return how many steps never ran."""
        return self.steps - self.times.total()

    @property
    def by_first(self) -> int:
        """Return how many runs the worker began that was killed."""
        return sum(run.worker == self.killed for run in self.runs)


def run_flow(shown: Screen, path: Path) -> Exit:
    """Run a workflow, kill its worker half-way, let another go on, and count what ran.

    Args:
        shown: Where to say it.

        path: The folder of the demo.

    Raises:
        ConfigurationError: A worker ended by itself, or the workflow does not end.
    """
    folder = FlowFolder(path / "workflow")
    folder.prepare()
    _introduce(shown)
    with variables(ours_only(folder.configuration)):
        figures = _worked(shown, folder)
    _report(shown, folder, figures)
    return Exit.OK if figures.lost == 0 and figures.recorded == figures.steps else Exit.PROBLEMS


def _introduce(shown: Screen) -> None:
    shown.line()
    shown.heading("A workflow is an async function whose awaits are recorded:")
    # The very code that runs, so that the text cannot lag behind it.
    shown.code(inspect.getsource(survey.versions[1].function))
    shown.line()


def _worked(shown: Screen, folder: FlowFolder) -> Figures:
    count = min(PACKAGES, len(packages()))
    steps = 1 + count + min(LARGEST, count)
    response = survey.options(idempotency_key=KEY).dispatch(PACKAGES, str(folder.effects))
    response.raise_for_error()
    with shown.progress("surveying  ", steps) as bar:
        with DemoWorker(folder, 1) as first:
            _follow(folder, bar, first, lambda runs: len(runs) > steps // 2)
            first.kill({run.process for run in folder.runs()})
        killed = time.monotonic()
        with DemoWorker(folder, 2) as second:
            _follow(folder, bar, second, lambda runs: runs[-1].worker == second.number)
            gap = time.monotonic() - killed
            _follow(folder, bar, second, lambda _: survey.execution(KEY).status() == "completed")
    result = survey.execution(KEY).result(LONGEST)
    return Figures(steps, first.number, folder.runs(), _answers(), gap, result)


def _answers() -> int:
    """Return how many answers of steps the journal has."""
    entries = journal().entries(survey.execution(KEY).id, timeout=LONGEST)
    asked = {each.number for each in entries if each.kind in (EntryKind.STEP, EntryKind.LOCAL)}
    return sum(each.kind is EntryKind.DONE and each.number in asked for each in entries)


def _follow(
    folder: FlowFolder, bar: Bar, worker: DemoWorker, is_there: Callable[[list[Run]], bool]
) -> None:
    """Show how far it is, until the workflow is where it should be.

    Raises:
        ConfigurationError: It does not come there.
    """
    until = time.monotonic() + LONGEST
    while not is_there(runs := folder.runs()):
        bar.show(len({run.step for run in runs}))
        if (end := worker.died) is not None:
            raise ConfigurationError(f"the worker of the demo ended by itself: {end}")
        if time.monotonic() > until:
            raise ConfigurationError(f"the workflow of the demo does not end: see {folder.log}")
        time.sleep(LOOK)
    bar.show(len({run.step for run in runs}))


# Report.


def _report(shown: Screen, folder: FlowFolder, figures: Figures) -> None:
    _say_counts(shown, figures)
    found = ", ".join(f"{package} ({count})" for package, count in figures.result.items())
    shown.line(f"It returned the largest packages with their classes: {found}")
    shown.line()
    shown.heading("What to do next")
    program = f"dispatchers --config {folder.configuration}"
    shown.fields(
        {
            "read what it did": f"{program} executions journal {KEY}",
            "see where it goes": f"{program} explain {survey.name}",
            "look at the workflow": flows.__file__,
        }
    )


def _say_counts(shown: Screen, figures: Figures) -> None:
    shown.line()
    shown.heading("Its worker was killed by kill -9, and another went on")
    by_second = len(figures.runs) - figures.by_first
    once, again = figures.times[1], figures.times.total() - figures.times[1]
    rows = [
        (f"begun by worker {figures.killed}, until it was killed", figures.by_first),
        (f"begun by the next, from {spoken(figures.gap)} later on", by_second),
        ("ran once", once),
        ("ran again, as they were under way when it was killed", again),
        ("recorded with their results", figures.recorded),
        ("lost", figures.lost),
    ]
    shown.table(("steps", "count"), [(text, str(count)) for text, count in rows])
