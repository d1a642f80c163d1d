"""The harness, the journal, and what the cases share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatchers import ErrorCategory, task
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.testing import ABILITIES, Harness, Journal
from dispatchers.testing.conformance import _tools
from dispatchers.testing.harness import alone
from dispatchers.testing.tasks import SAMPLE, same


class BareHarness(Harness):
    """The least that an author may write."""

    def make_dispatcher(self, **options: Any) -> MemoryDispatcher:
        return MemoryDispatcher(**options)


@task(name="harness.write")
def write(journal: str, text: str) -> None:
    Journal(journal).write(text)


# The harness.


def test_an_unknown_ability_is_an_error() -> None:
    """A misspelt reason would skip nothing, and the author would wonder why."""
    with pytest.raises(TypeError, match="did you mean 'network'"):
        type("Wrong", (BareHarness,), {"without": {"netwrok": "no"}})


def test_a_dispatcher_that_does_not_close_fails_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `close` that hangs is told, and does not keep the test run from ending."""
    released = threading.Event()

    class Hanging(MemoryDispatcher):
        def _close(self, timeout: float) -> int:
            released.wait(20.0)
            return 0

    monkeypatch.setattr("dispatchers.testing.harness.STUCK", 0.05)
    bare = BareHarness()
    bare.keep(Hanging())

    with pytest.raises(AssertionError, match=r"close\(0\.5\) did not return"):
        bare.end()
    released.set()


def test_what_closing_raises_fails_the_case() -> None:
    """An error of `close` is not lost on the thread that it was called on."""

    class Breaking(MemoryDispatcher):
        def _close(self, timeout: float) -> int:
            raise OSError("half closed")

    bare = BareHarness()
    bare.keep(Breaking())

    with pytest.raises(OSError, match="half closed"):
        bare.end()


def test_work_is_counted_by_queue() -> None:
    """`waiting` is what `stats()` says; without figures the case is skipped, with the reason."""

    class Uncounted(MemoryDispatcher):
        capabilities = MemoryDispatcher.capabilities.model_copy(update={"stats": False})

    bare, counted, uncounted = BareHarness(), MemoryDispatcher(), Uncounted()
    write.options(dispatcher=counted, queue="mail").dispatch("/nowhere", "x").raise_for_error()

    assert bare.waiting(counted)["mail"] == 1
    with pytest.raises(pytest.skip.Exception, match="memory has no figures"):
        bare.waiting(uncounted)


@pytest.mark.parametrize(
    "ask",
    [
        lambda h, d: h.received(d),
        lambda h, d: h.run_next(d),
        lambda h, d: h.dead(d),
        lambda h, d: h.crash(d),
        lambda h, d: h.stalled(d),
        lambda h, _: h.upstream,
        lambda h, _: h.connect("127.0.0.1", 1),
    ],
)
def test_what_is_not_written_says_what_to_write(
    ask: Callable[[Harness, object], object],
) -> None:
    """An ability is either written or denied with a reason; the error says both."""
    harness = BareHarness()

    with pytest.raises(NotImplementedError, match=r"BareHarness should .+ without = "):
        ask(harness, harness.make_dispatcher())


def test_a_missing_ability_skips_with_its_reason() -> None:
    """A case that cannot be judged says why."""
    lacking = type("Lacking", (BareHarness,), {"without": {"crash": "nobody dies here"}})()

    with pytest.raises(pytest.skip.Exception, match=r"let a worker die .+: nobody dies here"):
        lacking.need("worker", "crash")


def test_an_ability_that_does_not_exist_cannot_be_needed() -> None:
    """A case that asks for a misspelt ability fails instead of skipping for ever."""
    with pytest.raises(KeyError):
        BareHarness().need("crush")


@pytest.mark.parametrize("ability", ABILITIES)
def test_every_ability_is_a_sentence_after_should(ability: str) -> None:
    """`Harness should ...` reads well."""
    assert ABILITIES[ability].split()[0].islower()


def test_dispatchers_are_closed_at_the_end() -> None:
    """What a case made is closed with it."""
    harness = BareHarness()
    made = [harness.dispatcher(), harness.dispatcher()]

    harness.end()

    for dispatcher in made:
        error = write.options(dispatcher=dispatcher).dispatch("/nowhere", "x").error
        assert error is not None
        assert error.category is ErrorCategory.CLOSED


def test_a_broken_dispatcher_works_again_afterwards() -> None:
    """`broken` leaves nothing behind."""
    harness = BareHarness()
    dispatcher = harness.dispatcher()
    assert write.options(dispatcher=dispatcher).dispatch("/nowhere", "x").ok
    before = dict(vars(dispatcher))

    with harness.broken(dispatcher, RuntimeError("boom")):
        inside = write.options(dispatcher=dispatcher).dispatch("/nowhere", "x")

    assert not inside.ok
    assert vars(dispatcher) == before
    assert write.options(dispatcher=dispatcher).dispatch("/nowhere", "x").ok


def test_a_coroutine_alone_raises_what_it_raises() -> None:
    """What cannot be shown is raised as well, and asyncio is none the worse for it."""

    class UnspeakableError(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    async def fail() -> None:
        raise UnspeakableError

    async def work() -> int:
        return 7

    with pytest.raises(UnspeakableError):
        alone(fail())
    assert alone(work()) == 7


# The journal.


def test_a_journal_tells_what_ran(tmp_path: Path) -> None:
    """An entry has the request, the task, the attempt and the text."""
    journal = Journal(tmp_path / "journal")

    response = write.options(dispatcher=InlineDispatcher()).dispatch(journal.path, "é\n")

    [entry] = journal.of(response.request_id)
    assert (entry.task, entry.attempt, entry.deliveries) == ("harness.write", 1, 1)
    assert entry.text == "é\n"


def test_a_journal_that_nobody_wrote_is_empty(tmp_path: Path) -> None:
    """No file is no entries."""
    assert Journal(tmp_path / "journal").entries == []


def test_many_threads_write_whole_entries(tmp_path: Path) -> None:
    """Entries of many writers are neither lost nor mixed."""
    journal = Journal(tmp_path / "journal")
    dispatch = write.options(dispatcher=InlineDispatcher()).dispatch
    threads = [
        threading.Thread(
            target=lambda n=n: [dispatch(journal.path, str(n) * 500) for _ in range(20)]
        )
        for n in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(journal.texts) == sorted(str(n) * 500 for n in range(4) for _ in range(20))


# What the cases share.


def test_a_call_that_hangs_fails_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """C2: an adapter that never answers fails its case; it does not hang the suite."""
    monkeypatch.setattr(_tools, "HOPELESS", 0.1)
    never = threading.Event()
    try:
        with pytest.raises(AssertionError, match="no answer after"):
            _tools.answered(0.1, never.wait)
    finally:
        never.set()


def test_a_late_answer_fails_the_case() -> None:
    """C2: later than the deadline and the margin is too late."""
    late = threading.Event()

    with pytest.raises(AssertionError, match=r"the deadline is 0\.01 s"):
        _tools.answered(0.01, lambda: late.wait(0.4))


def test_what_lets_no_other_thread_run_is_no_lateness_of_the_call() -> None:
    """A garbage collection at the beginning of a call is the process's, and is forgiven."""
    began = time.monotonic()

    _tools.answered(0.01, lambda: sum(range(40_000_000)))  # in C, in one go

    if time.monotonic() - began < 0.01 + _tools.MARGIN:
        pytest.skip("this machine is too fast to tell")


def test_a_thread_that_ends_meanwhile_makes_nothing_earlier() -> None:
    """What it had waited for a processor can be read no more, and counts as nothing."""
    before = dict.fromkeys(_tools._queued(), 1e9)

    assert _tools._waited(before) >= 0


def test_a_child_that_hangs_fails_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """C8: a child that is stuck in a lock is killed and told."""
    monkeypatch.setattr(_tools, "PATIENCE", 0.2)

    with pytest.raises(AssertionError, match="the child hangs"):
        _tools.in_child(threading.Event().wait)


def test_a_child_that_raises_says_what() -> None:
    """C8: what goes wrong in a child is told in the parent."""
    assert _tools.in_child(lambda: 1 / 0) == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (1, True),
        ([1, 2], (1, 2)),
        ({"a": [1]}, {"a": [1.0]}),
        (SAMPLE["money"], SAMPLE["money"].normalize()),
        (SAMPLE["level"], 2),
        (b"x", bytearray(b"x")),
    ],
)
def test_equal_is_not_enough_to_be_the_same(left: object, right: object) -> None:
    """C5: what compares equal and is of another type is not what was sent."""
    assert not same(left, right)
    assert same(left, left)


# What is imported.


def test_the_kit_needs_no_pytest() -> None:
    """Recorder, proxy, harness and journal work where pytest is not installed."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from dispatchers.testing import FaultProxy, Harness, Journal, RecordingDispatcher\n"
        "with RecordingDispatcher.installed() as dispatched: dispatched.assert_none()\n"
        "try:\n    from dispatchers.testing import DispatcherConformance\n"
        "except ImportError: print('needs pytest')"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.strip() == "needs pytest"


def test_the_library_does_not_import_the_kit() -> None:
    """`import dispatchers` loads neither the kit nor pytest."""
    code = (
        "import sys, dispatchers\n"
        "print([m for m in sys.modules if m.startswith(('dispatchers.testing', 'pytest'))])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "[]"
