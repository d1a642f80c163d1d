"""The library's log."""

from __future__ import annotations

import ast
import logging
import threading
from pathlib import Path

import pytest

import dispatchers
from dispatchers import task
from dispatchers._runtime import log as runtime_log
from dispatchers._runtime.log import say, say_once
from dispatchers._runtime.log_format import TEXT, LineFormatter
from dispatchers._worker import settlement
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.thread import ThreadDispatcher

CORE = Path(dispatchers.__file__).parent
ROOT = Path(__file__).parents[2]
OTHERS = {
    "_runtime/log_format.py",  # reads the root logger's format, logs nothing
    "_runtime/log.py",  # the one place
    "cli/_surroundings.py",  # gives the logger a handler
    "sqlite/_worker/child_handle.py",  # reads the format of the application's handler
    "testing/conformance/_tools.py",  # reads records
}


def loggers_of(path: Path) -> list[int]:
    """The lines at which a module asks `logging` for a logger."""
    calls = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call))
    names = ((getattr(call.func, "attr", getattr(call.func, "id", "")), call) for call in calls)
    return [call.lineno for name, call in names if name == "getLogger"]


def test_the_core_logs_in_one_way():
    """C1: a record goes through `say`, which no handler and no filter can make raise."""
    wrong = [
        f"{path.relative_to(CORE)}:{line}"
        for path in sorted(CORE.rglob("*.py"))
        if path.relative_to(CORE).as_posix() not in OTHERS
        for line in loggers_of(path)
    ]

    assert wrong == []


def test_adapters_and_glue_log_in_the_same_way():
    """C9: a record of a consumer's loop cannot end it, or hold up what it says is done."""
    modules = [path for room in ("adapters", "contrib") for path in (ROOT / room).rglob("*.py")]
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(modules)
        if 'getLogger("dispatchers")' in (text := path.read_text()) or "getLogger(__name__)" in text
    ]

    assert modules
    assert wrong == []


class Raising(logging.Filter):
    def filter(self, record):
        raise RuntimeError("a filter of the application's")


@pytest.fixture
def raising_filter():
    logger, raises = logging.getLogger("dispatchers"), Raising()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addFilter(raises)
    yield
    logger.removeFilter(raises)
    logger.setLevel(level)


class Store:
    """A dead-letter store that is down at first."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error, self.tries = error, 0
        self.kept = threading.Event()

    def add(self, letter):
        self.tries += 1
        if self.tries < 3:
            raise self.error("down")
        self.kept.set()


@pytest.mark.parametrize("error", [OSError, SystemExit])
def test_a_filter_that_raises_loses_no_work(raising_filter, monkeypatch, error):
    """C9: the work comes back until its dead letter is stored, whatever the log does."""
    monkeypatch.setattr(settlement, "RETRY_DELAY", 0.01)

    @task(name="log.fails")
    def fails() -> None:
        raise TypeError("no")

    thread, store = ThreadDispatcher(workers=1), Store(error)
    thread._pool._letters = store
    response = fails.options(dispatcher=thread).dispatch()

    assert response.ok
    assert store.kept.wait(10)
    assert thread.close(10) == 0


class Refusing(logging.Logger):
    """What `logging.setLoggerClass` takes."""

    def isEnabledFor(self, level):
        raise RuntimeError("a logger of the application's")


@pytest.fixture
def raising_logger(monkeypatch):
    monkeypatch.setattr(logging.getLogger("dispatchers"), "__class__", Refusing)


def test_a_logger_that_raises_changes_no_outcome(raising_logger):
    """C1, C3: what has run well has succeeded, and what is refused is an answer."""

    @task(name="log.succeeds")
    def succeeds() -> None: ...

    memory = MemoryDispatcher()
    response = succeeds.options(dispatcher=memory).dispatch()
    outcome = memory.step()
    memory.close()
    refused = succeeds.options(dispatcher=memory).dispatch()

    assert response.ok
    assert outcome is not None
    assert outcome.reason == "succeeded"
    assert refused.error is not None
    assert refused.error.category == "closed"


class Owner: ...


def test_a_condition_that_recurs_is_one_record_an_interval(caplog, monkeypatch):
    """One record at once, and the count with the next after the interval."""
    owner = Owner()
    clock = [1000.0]
    monkeypatch.setattr(runtime_log, "monotonic", lambda: clock[0])

    for _ in range(88):
        say_once(owner, logging.WARNING, "full: %s", "disk")
    say_once(owner, logging.WARNING, "full: %s", "other")
    say_once(Owner(), logging.WARNING, "full: %s", "disk")
    clock[0] += runtime_log.INTERVAL
    say_once(owner, logging.WARNING, "full: %s", "disk")

    assert [record.getMessage() for record in caplog.records] == [
        "full: disk",
        "full: other",
        "full: disk",
        "full: disk (87 times more since)",
    ]


def test_one_condition_with_an_error_of_its_own_each_time_is_said_once(caplog):
    """Errors count by their text, and are not kept."""

    class Owner: ...

    owner = Owner()

    for _ in range(5):
        say_once(owner, logging.WARNING, "full: %s", OSError("disk"))

    assert [record.getMessage() for record in caplog.records] == ["full: disk"]


def test_an_owner_without_weak_references_has_each_record(caplog):
    """What cannot be told apart is written."""
    for _ in range(2):
        say_once(3, logging.WARNING, "x")

    assert len(caplog.records) == 2


def test_a_record_says_where_it_was_written(caplog):
    """A format with the place of a record has that of its `say`, and the words of an error."""
    say(logging.WARNING, "x", exc_info=OSError("disk"), extra={"task": "a"})

    [record] = caplog.records
    place = test_a_record_says_where_it_was_written.__code__
    assert (record.pathname, record.funcName) == (__file__, place.co_name)
    assert record.lineno == place.co_firstlineno + 2
    assert record.exc_info[0] is OSError
    assert record.task == "a"


def test_a_line_has_the_time_that_logging_gives_it():
    """The text of a second is kept, and is not that of the next one."""
    ours, theirs = LineFormatter(TEXT), logging.Formatter(TEXT)
    instants = [1.0009, 1.5, 1.9995, 2.0, 1_700_000_000.25, 1.5]
    records = [
        logging.makeLogRecord({"msg": "x", "created": each, "msecs": each % 1 * 1000})
        for each in instants
    ]

    assert [ours.format(each) for each in records] == [theirs.format(each) for each in records]
