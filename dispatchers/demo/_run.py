"""The demo from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic

from dispatchers import (
    ConfigurationError,
    DispatchRequest,
    DispatchResponses,
    DispatchStatus,
    get_dispatcher,
)
from dispatchers.cli._bar import Bar
from dispatchers.cli._exit import Exit
from dispatchers.cli._screen import Screen
from dispatchers.cli._surroundings import variables
from dispatchers.cli._worker import processors
from dispatchers.sqlite import SQLiteStore

from ._flow import run_flow
from ._folder import Folder, chosen, ours_only
from ._report import Figures, introduce, report
from ._source import library_files
from ._worker import DemoWorker
from .tasks import index_file

__all__ = ["PARTS", "run"]

PARTS = ("tasks", "workflow")
AT_ONCE = 100
"""Requests in one `dispatch_many`."""
MOST_WORKERS = 4
LOOK = 0.1
"""Seconds between two looks at the queue."""


def run(
    shown: Screen,
    *,
    folder: str | None,
    workers: int | None,
    limit: int | None,
    fresh: bool,
    parts: Collection[str] = PARTS,
) -> Exit:
    """Index the standard library and survey it by a workflow, and say how it went.

    Args:
        shown: Where to say it.

        folder: Where to work; None is a folder of this user's in the temporary folder.

        workers: How many worker processes; None is one per processor, at most four.

        limit: At most so many files.

        fresh: Begin anew, even if a run was interrupted.

        parts: `tasks`, `workflow` or both.

    Raises:
        ConfigurationError: The folder cannot be used, or there is nothing to work on.
    """
    place = chosen(folder)
    found = Exit.OK
    if "tasks" in parts:
        found = _tasks(shown, place, workers, limit, fresh=fresh)
    if found is Exit.OK and "workflow" in parts:
        found = _flow(shown, place)
    return found


def _tasks(
    shown: Screen, place: Folder, workers: int | None, limit: int | None, *, fresh: bool
) -> Exit:
    files = library_files(limit)
    with closing(place.index):
        before = _begun(place, limit, fresh=fresh)
        count = workers or min(MOST_WORKERS, processors())
        introduce(shown, place, len(files), before)
        figures = _worked(shown, place, files, count)
        if figures is None:
            return Exit.INTERRUPTED
        place.index.note("finished", "yes")
        report(shown, place, figures._replace(before=before or 0, workers=count))
    return Exit.PROBLEMS if figures.lost else Exit.OK


def _flow(shown: Screen, place: Folder) -> Exit:
    try:
        return run_flow(shown, place.path)
    except KeyboardInterrupt:
        shown.line()
        shown.line("Interrupted.", "yellow")
        return Exit.INTERRUPTED


def _worked(shown: Screen, place: Folder, files: Sequence[Path], count: int) -> Figures | None:
    """Return the counts of a run; None if Ctrl-C ended it."""
    # The variables first: the worker's processes inherit them.
    with variables(ours_only(place.configuration)), DemoWorker(place, count) as worker:
        try:
            return _work(shown, place, worker, files)
        except KeyboardInterrupt:
            shown.line()
            shown.line("Interrupted. Start it again, and it goes on where it was.", "yellow")
            return None


def _begun(place: Folder, limit: int | None, *, fresh: bool) -> int | None:
    """Return the files indexed by the run that this one continues."""
    before = place.unfinished()
    same = before is not None and place.index.noted("limit") == str(limit)
    # Another limit is another run: its counts would not add up with what was done.
    if fresh or not same:
        place.clear()
        before = None
    place.prepare()
    place.index.note("limit", str(limit))
    return before


def _work(shown: Screen, place: Folder, worker: DemoWorker, files: Sequence[Path]) -> Figures:
    store = SQLiteStore(place.queue)
    try:
        started = monotonic()
        requests = _requests(place, files, store)
        accepted, duplicates = _hand_over(shown, requests)
        handed_over = monotonic()
        _follow(shown, store, worker, len(files) + 1)
        return Figures(
            total=len(files) + 1,
            accepted=accepted,
            duplicates=duplicates,
            dispatching=handed_over - started,
            working=monotonic() - started,
            dead=len(store.dead.list()),
            found=place.index.found(),
        )
    finally:
        store.close()


def _requests(place: Folder, files: Sequence[Path], store: SQLiteStore) -> list[DispatchRequest]:
    """One request per file. A dead letter has released its key, and is not dispatched again."""
    dead = {job.key for job in store.dead.list()}
    paths = [str(file) for file in files]
    # In the middle, so that its failure is seen beside work that goes on.
    paths.insert(len(paths) // 2, str(place.poisoned))
    index = str(place.index_file)
    return [
        # The path is the key: a run that continues hands the same files over, and none is queued
        # twice.
        index_file.options(idempotency_key=path).request(path=path, index=index)
        for path in paths
        if path not in dead
    ]


def _hand_over(shown: Screen, requests: Sequence[DispatchRequest]) -> tuple[int, int]:
    """Dispatch them all; how many were accepted, and how many the queue had already."""
    dispatcher = get_dispatcher()
    accepted = duplicates = 0
    with shown.progress("dispatching", len(requests)) as bar:
        for some in _slices(requests):
            responses = dispatcher.dispatch_many(some)
            _refuse_failed(responses)
            accepted += sum(each.status is DispatchStatus.ACCEPTED for each in responses)
            duplicates += sum(each.status is DispatchStatus.DUPLICATE for each in responses)
            bar.show(accepted + duplicates)
    return accepted, duplicates


def _refuse_failed(responses: DispatchResponses) -> None:
    for response in responses.failed:
        why = response.error.message if response.error else ""
        raise ConfigurationError(f"a dispatch of the demo was {response.status}: {why}")


def _slices(requests: Sequence[DispatchRequest]) -> Iterator[Sequence[DispatchRequest]]:
    for start in range(0, len(requests), AT_ONCE):
        yield requests[start : start + AT_ONCE]


def _follow(shown: Screen, store: SQLiteStore, worker: DemoWorker, total: int) -> None:
    """Show how far the worker is, until there is nothing left to do.

    Raises:
        ConfigurationError: The worker ended by itself.
    """
    with shown.progress("working    ", total) as bar:
        while _look(store, bar):
            # Else the loop would wait for ever for work that no process runs.
            if (end := worker.died) is not None:
                raise ConfigurationError(f"the worker of the demo ended by itself: {end}")
            time.sleep(LOOK)


def _look(store: SQLiteStore, bar: Bar) -> bool:
    """Show the queue's numbers; whether there is work left."""
    now = store.counts()
    words = (
        f"waiting {now.ready}  running {now.running}  to be retried {now.delayed}  dead {now.dead}"
    )
    bar.show(now.done + now.expired + now.dead, words)
    return bool(now.ready + now.running + now.delayed)
