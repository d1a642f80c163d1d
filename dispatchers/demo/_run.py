"""The demo from beginning to end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
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

from ._folder import Folder, chosen
from ._report import Figures, introduce, report
from ._source import library_files
from ._worker import DemoWorker
from .tasks import index_file

__all__ = ["run"]

AT_ONCE = 100
"""Requests in one `dispatch_many`."""
MOST_WORKERS = 4
LOOK = 0.1
"""Seconds between two looks at the queue."""


def run(
    shown: Screen, *, folder: str | None, workers: int | None, limit: int | None, fresh: bool
) -> Exit:
    """Index the standard library, and say how it went.

    Args:
        shown: Where to say it.

        folder: Where to work; None is a folder of this user's in the temporary folder.

        workers: How many worker processes; None is one per processor, at most four.

        limit: At most so many files.

        fresh: Begin anew, even if a run was interrupted.

    Raises:
        ConfigurationError: The folder cannot be used, or there is nothing to work on.
    """
    place = chosen(folder)
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


def _worked(shown: Screen, place: Folder, files: Sequence[Path], count: int) -> Figures | None:
    """What a run counted; None if Ctrl-C ended it."""
    with variables(_ours_only(place)), DemoWorker(place, count) as worker:
        try:
            return _work(shown, place, worker, files)
        except KeyboardInterrupt:
            shown.line()
            shown.line("Interrupted. Start it again, and it goes on where it was.", "yellow")
            return None


def _begun(place: Folder, limit: int | None, *, fresh: bool) -> int | None:
    """How many files an interrupted run has indexed, if this one continues it."""
    before = place.unfinished()
    same = before is not None and place.index.noted("limit") == str(limit)
    if fresh or not same:
        place.clear()
        before = None
    place.prepare()
    place.index.note("limit", str(limit))
    return before


def _ours_only(place: Folder) -> dict[str, str | None]:
    """Nothing that is configured around us may change the demo."""
    others = dict.fromkeys(name for name in os.environ if name.upper().startswith("DISPATCHERS_"))
    return {**others, "DISPATCHERS_CONFIG": str(place.configuration)}


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
    paths.insert(len(paths) // 2, str(place.poisoned))
    index = str(place.index_file)
    return [
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
