"""Workers that are broken in one way each, and the case of `WorkerConformance` that catches them.

`DEFECTS` are slips of an author, made in the sources of two sound backends: the page
docs/adapters.md (`table`) and tests/third_party/acme_queue (`acme`). `BROKEN` are workers that
break what the base class does.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from dispatchers import DeadLetter, Worker, WorkerOptions, run_envelope
from dispatchers._worker.settlement import settle
from dispatchers.backends.memory import Delivery
from dispatchers.testing import Harness
from dispatchers.worker import BaseWorker, Work

from .reference import ShelfHarness

__all__ = ["BROKEN", "DEFECTS", "Defect", "ShelfWorker", "WorkerHarness", "planted"]

ROOT = Path(__file__).parents[2]
ACME = ROOT / "tests" / "third_party" / "acme_queue" / "acme_queue"
PAGE = ROOT / "docs" / "adapters.md"


# Slips of an author.


class Defect(NamedTuple):
    """One change of a sound source."""

    what: str
    """The slip, in words."""
    source: str
    """`table`, or the file of `acme`."""
    old: str
    """A text that the source has once."""
    new: str
    case: str
    """The case that fails for it, with its parameter in brackets."""


RUN = "test_work_that_comes_is_run"
ONCE = "test_each_piece_is_run_once"
QUEUES = "test_each_of_its_queues_is_served"
ONLY = "test_only_its_queues_are_served"
EARLY = "test_delayed_work_is_not_run_early"
DRAIN = "test_draining_ends"
DELAYED = "test_draining_and_delayed_work"
GRACE = "test_what_runs_beyond_the_grace_comes_again"
STOPS = "test_stops_are_no_deliveries"
HELD = "test_what_runs_is_held_by_the_backend"
RETRIES = "test_retries_are_attempts"
BACK_OFF = "test_a_retry_waits_for_its_back_off"
AGAIN = "test_work_comes_again_as_it_was_given_back"
BACK_LATER = "test_work_comes_again_no_earlier[_give_back]"
RETRY_LATER = "test_work_comes_again_no_earlier[_retry]"
UNKNOWN = "test_what_is_not_known_here_is_given_back"
DEAD = "test_failed_work_is_dead_once"
LETTERS = "test_dead_letters_are_listed_and_read"
GARBAGE = "test_a_message_that_is_no_envelope_is_dead"
EXITS = "test_a_handler_that_exits_ends_its_run_only"
KEPT = "test_a_long_run_keeps_its_lease"
WAITED = "test_a_lease_begins_as_work_is_taken"
GONE = "test_work_of_a_gone_worker_comes_again"
LOST = "test_a_lost_lease_is_not_renewed"
STAYS_DONE = "test_settled_work_does_not_come_again[_complete]"
STAYS_DEAD = "test_settled_work_does_not_come_again[_dead_letter]"
LATE = "test_a_former_owner_settles_nothing"
HOARDS = "test_a_busy_worker_holds_nothing_that_it_does_not_run"
AWAY = "test_a_backend_that_was_away_is_asked_again"
STAYS = "test_work_stays_in_its_queue"
BREAKS = "test_a_step_that_breaks_off_loses_nothing"

TAKEN = "return Work(token, *rows[0]) if rows else None"
GIVE = "self._again(work, after, work.attempt, deliveries)"
RETRY = "self._again(work, after, attempt, 0)"
COMPLETE = 'self._execute("DELETE FROM work WHERE token = ?", work.handle)'
AGAIN_ROW = "token = NULL WHERE token = ?"
AGAIN_VALUES = "*(time.time() + after, attempt, deliveries, work.handle)"
DEAD_ROW = '"UPDATE work SET dead = ?, token = NULL WHERE token = ?"'
AGAIN_SET = "UPDATE work SET due = ?, attempt = ?"
PUT_ANEW = (
    "self._complete(work)\n"
    "        self._execute('INSERT INTO work (id, queue, body, due, attempt, dead)"
    " VALUES (?, ?, ?, ?, ?, ?)'"
)
LETTER = "self._execute(dead, letter.reason, work.handle)"
RENEW = 'held = "UPDATE work SET due = ? WHERE token = ? RETURNING id"'
RENEWED = "bool(self._execute(held, time.time() + self.lease, work.handle))"
MATCH = "(? = '[]' OR queue IN (SELECT value FROM json_each(?)))"
CLAIMED = "SET token = ?, due = ?, deliveries = deliveries + 1 WHERE"

DEFECTS = [
    # The table: taking.
    Defect("takes work without a lease", "table", "now + self.lease, now,", "now, now,", HELD),
    Defect("takes work for ever", "table", "now + self.lease, now,", "now + 3600, now,", GONE),
    Defect("takes work before it is due", "table", ", now, queues,", ", now + 60, queues,", EARLY),
    Defect("takes from all queues", "table", MATCH, "(1 OR ? OR ?)", ONLY),
    Defect("takes from one queue only", "table", "dumps(self.options.queues)",
           "dumps(self.options.queues[:1])", QUEUES),
    Defect("takes nothing if no queue is named", "table", "(? = '[]' OR", "(? = '' OR", RUN),
    Defect("takes dead work", "table", "AND dead IS NULL", "", STAYS_DEAD),
    Defect("counts no deliveries", "table", "deliveries = deliveries + 1", "deliveries = 1", GONE),
    Defect("counts two deliveries", "table", "deliveries + 1", "deliveries + 2", AGAIN),
    Defect("takes the token of another", "table", "secrets.token_hex()", '"token"', HELD),
    Defect("settles as it takes", "table", TAKEN,
           "if rows: self._execute('DELETE FROM work WHERE token = ?', token)\n"
           "        return Work(token, *rows[0]) if rows else None", HELD),
    Defect("forgets the attempt", "table", TAKEN,
           "return Work(token, rows[0][0], 1, *rows[0][2:]) if rows else None", RETRIES),
    Defect("forgets the deliveries", "table", TAKEN,
           "return Work(token, *rows[0][:2], 1, *rows[0][3:]) if rows else None", EXITS),
    Defect("forgets the id", "table", TAKEN,
           "return Work(token, *rows[0][:3], '', rows[0][4]) if rows else None", GARBAGE),
    Defect("forgets the queue", "table", TAKEN,
           "return Work(token, *rows[0][:4]) if rows else None", LETTERS),
    Defect("waits for ever", "table", TAKEN,
           "import threading; rows or threading.Event().wait()\n"
           "        return Work(token, *rows[0])", RUN),
    Defect("raises where nothing is due", "table", TAKEN, "return Work(token, *rows[0])", DRAIN),
    Defect("holds more than it runs", "table", TAKEN,
           "self._execute('UPDATE work SET due = due + 60 WHERE token IS NULL')\n"
           "        return Work(token, *rows[0]) if rows else None", HOARDS),
    Defect("forgets the queue in a batch", "table", "    def _category(",
           "    def _send_many(self, items, *, timeout):\n"
           "        return [self._send(r.replace(queue=None), b, timeout=timeout)"
           " for r, b in items]\n"
           "\n    def _category(", QUEUES),
    Defect("forgets the queue of what is awaited", "table", "    def _category(",
           "    async def _asend(self, request, body, *, timeout):\n"
           "        return self._send(request.replace(queue=None), body, timeout=timeout)\n"
           "\n    def _category(", QUEUES),
    # The table: settling.
    Defect("does not complete", "table", COMPLETE, "pass", RUN),
    Defect("completes by the id", "table", COMPLETE,
           'self._execute("DELETE FROM work WHERE id = ?", work.id)', LATE + "[_complete]"),
    Defect("completes everything", "table", COMPLETE, 'self._execute("DELETE FROM work")', HELD),
    Defect("keeps what is complete", "table", COMPLETE,
           'self._execute("UPDATE work SET token = NULL WHERE token = ?", work.handle)',
           STAYS_DONE),
    Defect("does not retry", "table", RETRY, "pass", RETRIES),
    Defect("retries the same attempt", "table", RETRY,
           "self._again(work, after, work.attempt, 0)", RETRIES),
    Defect("retries with the deliveries", "table", RETRY,
           "self._again(work, after, attempt, work.deliveries)", RETRIES),
    Defect("retries at once", "table", RETRY, "self._again(work, 0.0, attempt, 0)", RETRY_LATER),
    Defect("completes instead of a retry", "table", RETRY, "self._complete(work)", RETRIES),
    Defect("retries, and completes then", "table", RETRY,
           "self._again(work, after, attempt, 0)\n"
           "        self._execute('DELETE FROM work WHERE id = ?', work.id)", RETRIES),
    Defect("retries twice", "table", RETRY,
           "self._again(work, after, attempt, 0)\n"
           "        self._execute('INSERT INTO work (id, queue, body, due, attempt)"
           " VALUES (?, ?, ?, 0, ?)', str(time.time()), 'default', work.body, attempt)", RETRIES),
    Defect("does not give back", "table", GIVE, "pass", GRACE),
    Defect("gives back at once", "table", GIVE,
           "self._again(work, 0.0, work.attempt, deliveries)", BACK_LATER),
    Defect("gives back as another attempt", "table", GIVE,
           "self._again(work, after, work.attempt + 1, deliveries)", GRACE),
    Defect("gives back as the first attempt", "table", GIVE,
           "self._again(work, after, 1, deliveries)", AGAIN),
    Defect("gives back as a delivery", "table", GIVE,
           "self._again(work, after, work.attempt, work.deliveries)", STOPS),
    Defect("gives back as not delivered", "table", GIVE,
           "self._again(work, after, work.attempt, 0)", EXITS),
    Defect("drops what it gives back", "table", GIVE, "self._complete(work)", UNKNOWN),
    Defect("dead-letters what it gives back", "table", GIVE,
           "self._execute('UPDATE work SET dead = ? WHERE token = ?', 'x', work.handle)", UNKNOWN),
    Defect("forgets every back-off", "table", AGAIN_VALUES,
           "*(time.time(), attempt, deliveries, work.handle)", BACK_OFF),
    Defect("takes seconds for milliseconds", "table", AGAIN_VALUES,
           "*(time.time() + after / 1000, attempt, deliveries, work.handle)", BACK_OFF),
    Defect("gives back by the id", "table", AGAIN_ROW + '",\n            ' + AGAIN_VALUES,
           'token = NULL WHERE id = ?",\n'
           "            *(time.time() + after, attempt, deliveries, work.id)",
           LATE + "[_give_back]"),
    Defect("retries by the id", "table", RETRY,
           "self._execute('UPDATE work SET due = ?, attempt = ?, token = NULL WHERE id = ?',"
           " time.time() + after, attempt, work.id)", LATE + "[_retry]"),
    Defect("does not dead-letter", "table", LETTER, "pass", DEAD),
    Defect("drops what is dead", "table", DEAD_ROW,
           '"DELETE FROM work WHERE ? <> 0 AND token = ?"', DEAD),
    Defect("dead-letters by the id", "table", LETTER,
           "self._execute(dead.replace('WHERE token', 'WHERE id'), letter.reason, work.id)",
           LATE + "[_dead_letter]"),
    Defect("dead-letters all", "table", DEAD_ROW,
           '"UPDATE work SET dead = ?, token = NULL WHERE ? <> 0"', LATE + "[_dead_letter]"),
    Defect("keeps the last dead letter only", "table", LETTER,
           "self._execute('DELETE FROM work WHERE dead NOT NULL')\n"
           "        self._execute(dead, letter.reason, work.handle)", DEAD),
    Defect("loses the queue of what comes again", "table", AGAIN_SET,
           AGAIN_SET.replace("SET", "SET queue = 'default',"), STAYS),
    Defect("cuts what it retries", "table", RETRY,
           "self._execute('UPDATE work SET body = substr(body, 1, 65536) WHERE token = ?',"
           " work.handle)\n        self._again(work, after, attempt, 0)", AGAIN),
    Defect("cuts what it gives back", "table", GIVE,
           "self._execute('UPDATE work SET body = substr(body, 1, 65536) WHERE token = ?',"
           " work.handle)\n        self._again(work, after, work.attempt, deliveries)", AGAIN),
    Defect("settles before it retries", "table", RETRY,
           PUT_ANEW + ", work.id, work.queue, work.body, time.time() + after, attempt, None)",
           BREAKS + "[_retry]"),
    Defect("settles before it gives back", "table", GIVE,
           PUT_ANEW + ", work.id, work.queue, work.body, time.time() + after, work.attempt, None)",
           BREAKS + "[_give_back]"),
    Defect("settles before it dead-letters", "table", LETTER,
           PUT_ANEW + ", work.id, work.queue, work.body, 0, work.attempt, letter.reason)",
           BREAKS + "[_dead_letter]"),
    # The table: leases.
    Defect("renews nothing", "table", "return " + RENEWED, "return True", KEPT),
    Defect("renews no lease of its own", "table", "return " + RENEWED, "return False", KEPT),
    Defect("renews up to now", "table", RENEWED,
           "bool(self._execute(held, time.time(), work.handle))", KEPT),
    Defect("renews the lease of another", "table", RENEWED,
           "bool(self._execute(held.replace('WHERE token', 'WHERE id'),"
           " time.time() + self.lease, work.id))", LOST),
    Defect("tells of no lost lease", "table", RENEWED,
           "self._execute(held, time.time() + self.lease, work.handle) is not None", LOST),
    # The files of `acme`.
    Defect("copies what it claims", "_spool", 'if self._move(work, "waiting", "claimed"):',
           'if (self.path / "claimed" / work.name).write_bytes(file.read_bytes()):', ONCE),
    Defect("claims before it is due", "_spool", "if work.due > now:", "if work.due < 0:", EARLY),
    Defect("begins no lease", "_spool", "    os.utime(file)", "    pass", WAITED),
    Defect("sees no lease run out", "_spool", "        self._recover()\n", "", GONE),
    Defect("sees leases run out at once", "_spool", "time.time() - self.lease", "time.time()",
           HELD),
    Defect("counts no delivery of a dead worker", "_spool", "deliveries=work.deliveries + 1",
           "deliveries=work.deliveries", GONE),
    Defect("holds nothing longer", "_spool", 'os.utime(self.path / "claimed" / work.name)',
           'os.stat(self.path / "claimed" / work.name)', KEPT),
    Defect("holds what is not there", "_spool",
           "work.name)\n        except FileNotFoundError:\n            return False",
           "work.name)\n        except FileNotFoundError:\n            pass", LOST),
    Defect("keeps what is done", "_spool", ".unlink(missing_ok=True)", ".exists()", RUN),
    Defect("retries by a copy", "_spool", 'self._move(work, "claimed", "waiting", to)',
           '(self.path / "waiting" / to.name).write_bytes(self.body(work))', RETRIES),
    Defect("forgets the attempt", "_spool", "to = replace(work, due=due, attempt=attempt,",
           "to = replace(work, due=due,", RETRIES),
    Defect("forgets the deliveries", "_spool", "=attempt, deliveries=deliveries)\n",
           "=attempt)\n", AGAIN),
    Defect("forgets when it is due", "_spool", "replace(work, due=due, ", "replace(work, ",
           BACK_OFF),
    Defect("leaves what is dead", "_spool", 'self._move(work, "claimed", "dead")', "pass", DEAD),
    Defect("puts dead work back", "_spool", 'self._move(work, "claimed", "dead")',
           'self._move(work, "claimed", "waiting")', DEAD),
    Defect("has a lease that is not renewed", "_worker", "        self.lease = spool.lease\n", "",
           KEPT),
    Defect("gives the attempt no number", "_worker", "file.attempt, file.deliveries, file.id",
           "1, file.deliveries, file.id", RETRIES),
    Defect("gives the delivery no number", "_worker", "file.attempt, file.deliveries, file.id",
           "file.attempt, 1, file.id", EXITS),
    Defect("renews without a look", "_worker", "return self._spool.touch(work.handle)",
           "return True", KEPT),
    Defect("retries as delivered before", "_worker", "deliveries=1)", "deliveries=2)", RETRIES),
    Defect("gives back as delivered", "_worker", "deliveries=deliveries + 1",
           "deliveries=work.deliveries + 1", STOPS),
    Defect("gives back for no time", "_worker", "work.handle, after, attempt=work.attempt",
           "work.handle, 0.0, attempt=work.attempt", BACK_LATER),
    Defect("completes what it should retry", "_worker",
           "self._spool.again(work.handle, after, attempt=attempt, deliveries=1)",
           "self._spool.done(work.handle)", RETRIES),
    Defect("completes what is dead", "_worker", "self._spool.bury(work.handle)",
           "self._spool.done(work.handle)", DEAD),
    Defect("has no id for the letter", "_worker", "file.deliveries, file.id)", "file.deliveries)",
           GARBAGE),
]  # fmt: skip

_numbers = itertools.count()


def planted(defect: Defect, folder: Path) -> Harness:
    """Return the harness of a backend with this defect, whose sources go into a folder."""
    if defect.source == "table":
        return TableHarness(_loaded({"__init__": _changed(_page(), defect)}, folder), folder)
    files = {file.stem: file.read_text() for file in ACME.glob("*.py")}
    files[defect.source] = _changed(files[defect.source], defect)
    return AcmeHarness(_loaded(files, folder), folder)


def _changed(text: str, defect: Defect) -> str:
    assert text.count(defect.old) == 1, (
        f"{defect.what}: the source has it {text.count(defect.old)} times"
    )
    return text.replace(defect.old, defect.new)


def _page() -> str:
    [source] = re.findall(r"```python\n(# acme_table\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    return str(source)


def _loaded(files: dict[str, str], folder: Path) -> ModuleType:
    """Import a package of these files under a name that no other has."""
    name = f"broken_worker_{next(_numbers)}"
    (folder / name).mkdir()
    for stem, text in files.items():
        (folder / name / f"{stem}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(
        name, folder / name / "__init__.py", submodule_search_locations=[str(folder / name)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FileHarness(Harness):
    """A backend in files, made by a module."""

    without = {"network": "the queue is in files", "stall": "a local disk does not wait"}

    def __init__(self, module: Any, folder: Path) -> None:
        self.module, self.folder = module, folder

    def close(self) -> None:
        for name in [name for name in sys.modules if name.startswith(self.module.__name__)]:
            del sys.modules[name]


class TableHarness(FileHarness):
    """The table of docs/adapters.md."""

    kind: Any = None
    lease = 60.0

    def make_dispatcher(self, **options: Any) -> Any:
        return self.module.TableDispatcher(file=str(self.folder / "work.db"), **options)

    def make_worker(self, dispatcher: Any, **options: Any) -> Worker:
        kind = self.kind or self.module.TableWorker
        worker = type(kind.__name__, (kind,), {"lease": self.lease, "poll": 0.02})
        return worker(dispatcher, WorkerOptions(**options))  # type: ignore[no-any-return]

    def leased(self, seconds: float) -> dict[str, object]:
        self.lease = seconds
        return {}

    def received(self, dispatcher: Any) -> list[bytes]:
        return [body for (body,) in dispatcher.execute("SELECT body FROM work WHERE dead IS NULL")]

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [body for (body,) in dispatcher.execute("SELECT body FROM work WHERE dead NOT NULL")]


class AcmeHarness(FileHarness):
    """The folder of `acme`."""

    def make_dispatcher(self, **options: Any) -> Any:
        return self.module.AcmeDispatcher(path=self.folder / "spool", **options)

    def make_worker(self, dispatcher: Any, **options: Any) -> Worker:
        worker = dispatcher._worker(WorkerOptions(**options))
        worker.poll = 0.02
        return worker  # type: ignore[no-any-return]

    def leased(self, seconds: float) -> dict[str, object]:
        return {"lease": seconds}

    def received(self, dispatcher: Any) -> list[bytes]:
        return dispatcher.spool.bodies("waiting", "claimed")  # type: ignore[no-any-return]

    def dead(self, dispatcher: Any) -> list[bytes]:
        return dispatcher.spool.bodies("dead")  # type: ignore[no-any-return]


# Workers that break what the base class does.


class ShelfWorker(BaseWorker[Delivery]):
    """A sound worker of a shelf."""

    poll = 0.01

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options)
        self.shelf = dispatcher

    def _take(self, wait: float) -> Work[Delivery] | None:
        found = self.shelf.claim(self.options.queues)
        if found is None:
            return None
        return Work(found, found.body, found.attempt, found.deliveries, found.id, found.queue)

    def _complete(self, work: Work[Delivery]) -> None:
        self.shelf._queue.finish(work.handle, remember=True)

    def _retry(self, work: Work[Delivery], after: float, attempt: int) -> None:
        self.shelf._queue.back(work.handle, after, attempt=True)

    def _give_back(self, work: Work[Delivery], after: float, deliveries: int) -> None:
        if deliveries == work.deliveries:
            self.shelf.abandon(work.handle)
        else:
            self.shelf._queue.back(work.handle, after)

    def _dead_letter(self, work: Work[Delivery], letter: DeadLetter) -> None:
        if self.dispatcher.letters is None:
            self.shelf._letters.add(letter)
        self.shelf._queue.finish(work.handle, remember=False)


class Unsettled(ShelfWorker):
    """Does not settle what has run."""

    def _complete(self, work: Work[Delivery]) -> None:
        pass


class Endless(ShelfWorker):
    """Knows nothing of `drain`."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options.model_copy(update={"drain": False}))


class OneByOne(ShelfWorker):
    """Knows nothing of `concurrency`."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options.model_copy(update={"concurrency": 1}))


class AllQueues(ShelfWorker):
    """Knows nothing of `queues`."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options.model_copy(update={"queues": ()}))


class Usual(ShelfWorker):
    """Serves the queue that it has found first."""

    def _take(self, wait: float) -> Work[Delivery] | None:
        work = super()._take(wait)
        if work is not None:
            self.options = self.options.model_copy(update={"queues": (work.queue,)})
        return work


class Bare(ShelfWorker):
    """Knows nothing of `modules`."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options.model_copy(update={"modules": ()}))


class Alarming(ShelfWorker):
    """Ends with 1 whatever has happened."""

    def run(self) -> int:  # type: ignore[misc]
        return super().run() or 1


class Deaf(ShelfWorker):
    """Does not tell handlers that it stops."""

    def _outcome(self, delivery: Any) -> Any:
        return run_envelope(
            delivery.body,
            attempt=delivery.attempt,
            deliveries=delivery.deliveries,
            settings=self._settings,
        )


class Hasty(ShelfWorker):
    """Ends as one thread finds nothing, whatever the others do."""

    def _look(self) -> None:
        work = self._due(self.poll)
        if work is not None:
            self._survived(work)
        elif self.options.drain:
            self.stop()


class Waiting(ShelfWorker):
    """Waits for delayed work, and does not say so."""

    def _is_drained(self) -> bool:
        return self.shelf._queue.is_empty(())  # type: ignore[no-any-return]


class Hoarding(ShelfWorker):
    """Takes more than it runs."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options)
        self.hoard: list[Work[Delivery]] = []

    def _take(self, wait: float) -> Work[Delivery] | None:
        while (work := super()._take(wait)) is not None:
            self.hoard.append(work)
        return self.hoard.pop(0) if self.hoard else None


class Greedy(ShelfWorker):
    """Goes on after a stop until nothing is left."""

    def _look(self) -> None:
        while (work := self._take(0.0)) is not None:
            self._survived(work)


class Restarting(ShelfWorker):
    """Forgets a stop as it starts."""

    def run(self) -> int:  # type: ignore[misc]
        self._stopping = type(self._stopping)()
        return super().run()


class Locking(ShelfWorker):
    """Has a lock that a signal handler cannot get, while the thread it interrupts has it."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options)
        self.lock = threading.Lock()

    def run(self) -> int:  # type: ignore[misc]
        with self.lock:
            return super().run()

    def stop(self) -> None:  # type: ignore[misc]
        with self.lock:
            super().stop()


class Keeping(ShelfWorker):
    """Keeps what still runs after the grace."""

    def _give_back(self, work: Work[Delivery], after: float, deliveries: int) -> None:
        pass


class Counting(ShelfWorker):
    """Counts what it gives back as delivered."""

    def _give_back(self, work: Work[Delivery], after: float, deliveries: int) -> None:
        self.shelf.abandon(work.handle)


class Despairing(ShelfWorker):
    """Ends its thread as the backend fails."""

    def _loop(self) -> None:
        try:
            while not self._stopping.is_set():
                self._look()
        except ConnectionError:
            pass


class Resigning(ShelfWorker):
    """Takes an error for an empty queue."""

    def _due(self, wait: float) -> Work[Delivery] | None:
        try:
            return super()._due(wait)
        except ConnectionError:
            return None


class Fragile(ShelfWorker):
    """Ends with a handler that exits."""

    def _survived(self, work: Work[Delivery]) -> None:
        try:
            self._worked(work)
        except (SystemExit, KeyboardInterrupt):
            self.stop()


class Careless(ShelfWorker):
    """Settles failed work although its letter is nowhere."""

    def _settled(self, delivery: Any, outcome: Any) -> None:
        settle(delivery, outcome)


class Forgetful(ShelfWorker):
    """Keeps a dead letter without its envelope."""

    def _dead_letter(self, work: Work[Delivery], letter: DeadLetter) -> None:
        super()._dead_letter(work, letter.model_copy(update={"body": b""}))


class Remembering(ShelfWorker):
    """Holds on to the key of dead work."""

    def _dead_letter(self, work: Work[Delivery], letter: DeadLetter) -> None:
        self.shelf._letters.add(letter)
        self.shelf._queue.finish(work.handle, remember=True)


class Late(ShelfWorker):
    """Settles what has ended after the grace, for whomever has it now."""

    def _is_mine(self, delivery: Any) -> bool:
        return super()._is_mine(delivery) or True

    def _complete(self, work: Work[Delivery]) -> None:
        for each in tuple(self.shelf._queue._claimed):
            if each.work is work.handle.work:
                self.shelf._queue.finish(each, remember=True)


BROKEN: list[tuple[str, type[ShelfWorker]]] = [
    (RUN, Unsettled),
    (DRAIN, Endless),
    ("test_draining_waits_for_what_runs", Hasty),
    (DELAYED, Waiting),
    ("test_so_many_runs_go_at_once", OneByOne),
    (HOARDS, Hoarding),
    (ONLY, AllQueues),
    ("test_its_modules_are_imported", Bare),
    ("test_what_runs_is_finished", Alarming),
    ("test_what_runs_is_finished", Deaf),
    ("test_nothing_is_begun_after_a_stop", Greedy),
    ("test_a_stop_before_the_start_counts", Restarting),
    ("test_a_signal_handler_may_stop_it", Locking),
    (GRACE, Keeping),
    (STOPS, Counting),
    (AWAY, Despairing),
    ("test_a_backend_that_is_away_is_not_drained", Resigning),
    ("test_all_queues_are_served", Usual),
    (EXITS, Fragile),
    ("test_a_handler_that_is_interrupted_ends_its_run_only", Fragile),
    ("test_work_whose_letter_is_not_stored_is_kept", Careless),
    (LETTERS, Careless),
    ("test_its_own_dead_letters_are_listed_and_read", Forgetful),
    ("test_a_dead_letter_frees_its_key", Remembering),
    ("test_a_late_run_settles_nothing", Late),
]


class WorkerHarness(ShelfHarness):
    """Makes workers of one class; what they hold is not settled."""

    def __init__(self, worker: type[ShelfWorker] = ShelfWorker) -> None:
        super().__init__()
        self.worker = worker

    def make_worker(self, dispatcher: Any, **options: Any) -> ShelfWorker:
        return self.worker(dispatcher, WorkerOptions(**options))

    def received(self, dispatcher: Any) -> list[bytes]:
        held = [delivery.body for delivery in tuple(dispatcher._queue._claimed)]
        return [*super().received(dispatcher), *held]


HANGS = "test_a_renewal_that_hangs_holds_up_no_other"


def in_turn(folder: Path) -> Harness:
    """Return the harness of a table whose leases are renewed one after the other."""
    harness = TableHarness(_loaded({"__init__": _page()}, folder), folder)

    class InTurn(harness.module.TableWorker):  # type: ignore[name-defined,misc]
        lock = threading.Lock()

        def _renewed(self, delivery: Any) -> bool:
            with self.lock:
                return super()._renewed(delivery)  # type: ignore[no-any-return]

    harness.kind = InTurn
    return harness
