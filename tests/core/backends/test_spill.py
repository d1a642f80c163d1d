"""`spill`: work waits in a file while a broker takes none (F5, F7, F8, F10; O7 to O15)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers import (
    ConfigurationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    hooks,
)
from dispatchers._models.envelope import encode
from dispatchers._runtime.platform import passing_filesystem, remote_filesystem
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.forwarding import Step
from dispatchers.testing import RecordingDispatcher, processes


@pytest.fixture
def broker() -> RecordingDispatcher:
    return RecordingDispatcher(alias="broker")


@pytest.fixture
def made(tmp_path: Path, broker: RecordingDispatcher) -> Iterator[SpillDispatcher]:
    spill = at(tmp_path, broker)
    yield spill
    spill.close(5)


def at(folder: Path, broker: Any, **options: Any) -> SpillDispatcher:
    """A spill whose forwarder is stepped by hand."""
    spill = SpillDispatcher(to=broker, path=str(folder / "spill.db"), alias="kept", **options)
    spill.forwarder.start = lambda: None  # type: ignore[method-assign]
    return spill


def request(number: int = 0, **options: Any) -> DispatchRequest:
    return DispatchRequest(task="shop.mail", payload={"n": number}, **options)


def got(broker: RecordingDispatcher) -> list[Any]:
    return [job.dispatched.request.payload["n"] for job in broker._book.waiting]


def drained(spill: SpillDispatcher) -> None:
    until = time.monotonic() + 30
    while spill.forwarder.step() is not Step.EMPTY:
        assert time.monotonic() < until


TWO = 50 + 2 * len(encode(request()))
"""Bytes that two pieces of work fit into."""


def test_while_the_broker_takes_work_the_file_holds_none(made, broker):
    """The answer is the broker's own."""
    response = made.dispatch(request())

    assert (response.status, response.dispatcher) == (DispatchStatus.ACCEPTED, "broker")
    assert made.held.totals(timeout=5) == (0, 0)


@pytest.mark.parametrize("way", ["dispatch", "dispatch_many", "adispatch", "adispatch_many"])
def test_what_the_broker_certainly_rejects_is_kept(made, broker, way):
    """F5: `deferred` and durable, and the answer says why."""
    broker.down()
    given: Any = request() if "many" not in way else [request()]
    answer = getattr(made, way)(given)
    found = asyncio.run(answer) if way.startswith("a") else answer
    response = found[0] if "many" in way else found

    assert (response.status, response.dispatcher) == (DispatchStatus.DEFERRED, "kept")
    assert (response.durable, response.confirmed) == (True, True)
    assert [each.dispatcher for each in response.passed] == ["broker"]
    assert made.held.totals(timeout=5)[0] == 1


def test_what_may_have_arrived_is_not_kept(made, broker):
    """F1: after `unknown` it would run twice."""
    broker.fail_next(status="unknown")

    assert made.dispatch(request()).status is DispatchStatus.UNKNOWN
    assert made.held.totals(timeout=5)[0] == 0


@pytest.mark.parametrize("category", ["invalid", "unsupported", "too_large", "permission"])
def test_what_could_never_be_taken_is_not_kept(made, broker, category):
    """F4: it is rejected while the caller looks."""
    broker.fail_next(category=category)

    response = made.dispatch(request())

    assert (response.status, response.error.category) == (DispatchStatus.REJECTED, category)
    assert made.held.totals(timeout=5)[0] == 0


def test_what_is_kept_leaves_in_order_once_the_broker_is_back(made, broker):
    """F7, F8: under the same ids, none lost, none twice."""
    with broker.down():
        kept = [made.dispatch(request(n)).request_id for n in range(20)]
    drained(made)

    assert got(broker) == list(range(20))
    assert [job.dispatched.request.id for job in broker._book.waiting] == kept
    assert made.held.totals(timeout=5) == (0, 0)


def test_later_work_of_a_lane_waits_behind_what_is_held(made, broker):
    """F8: and that of other lanes goes straight out; the header `lane` beats the queue."""
    broker.fail_next()
    first = made.dispatch(request(1, queue="mail"))
    later = made.dispatch(request(2, queue="mail"))
    other = made.dispatch(request(3, queue="other"))
    batch = made.dispatch_many([request(4, queue="mail"), request(5, headers={"lane": "own"})])
    same_lane = made.dispatch(request(6, headers={"lane": "mail"}))

    assert [each.status.value for each in (first, later, other, *batch, same_lane)] == [
        "deferred", "deferred", "accepted", "deferred", "accepted", "deferred",
    ]  # fmt: skip
    drained(made)
    assert got(broker) == [3, 5, 1, 2, 4, 6]


def test_without_order_later_work_goes_straight_out(tmp_path, broker):
    """`order = "none"` asks the broker each time."""
    spill = at(tmp_path, broker, order="none")
    broker.fail_next()

    answers = [spill.dispatch(request(n)).status.value for n in range(2)]

    assert answers == ["deferred", "accepted"]
    spill.close()


def test_a_lane_that_cannot_move_holds_up_no_other(made, broker):
    """F8: what is refused keeps its own lane only, and its place in it."""
    with broker.down():
        for n, queue in enumerate(["a", "b", "a", "b"]):
            made.dispatch(request(n, queue=queue))
    broker.fail_when(lambda given: given.queue == "a", category="throttled")
    for _ in range(20):
        made.forwarder.step()
    stuck = got(broker)
    broker.up()
    drained(made)

    assert stuck == [1, 3]
    assert got(broker) == [1, 3, 0, 2]


@pytest.mark.dispatchers_unchecked  # the letter tells
@pytest.mark.parametrize("category", ["invalid", "too_large", "unsupported"])
def test_poison_becomes_a_dead_letter_and_its_lane_goes_on(made, broker, category):
    """O8: with reason and body, to be looked at and replayed."""
    with broker.down():
        ids = [made.dispatch(request(n)).request_id for n in range(3)]
    broker.fail_when(lambda given: given.id == ids[1], category=category)
    drained(made)
    (letter,) = made._dead_letters().list()

    assert got(broker) == [0, 2]
    assert (letter.id, letter.task, letter.reason) == (ids[1], "shop.mail", "permanent")
    assert category in letter.error.message
    assert b'"n":1' in letter.body
    assert [each.dead for each in made.stats()] == [1]


def test_what_is_held_too_long_becomes_a_dead_letter(tmp_path, broker):
    """`max_age`: never silently gone."""
    spill = at(tmp_path, broker, max_age=0.001)
    with broker.down():
        kept = spill.dispatch(request()).request_id
    time.sleep(0.01)
    drained(spill)

    (letter,) = spill._dead_letters().list()
    assert (letter.id, letter.reason, got(broker)) == (kept, "expired", [])
    spill.close()


@pytest.mark.parametrize(
    "bound",
    [
        {"max_items": 2},
        {"max_bytes": TWO},
    ],
)
def test_the_file_is_bounded(tmp_path, broker, bound):
    """O10: beyond that it is rejected, `capacity`: told, not lost."""
    spill = at(tmp_path, broker, **bound)
    with broker.down():
        one, two = spill.dispatch(request()), spill.dispatch(request())
        more = spill.dispatch_many([request() for _ in range(3)])
        held = spill.held.totals(timeout=5)[0]
    drained(spill)
    again = spill.dispatch(request())

    assert (one.ok, two.ok, held) == (True, True, 2)
    assert {each.error.category for each in more} == {ErrorCategory.CAPACITY}
    assert all(each.error.retryable for each in more)
    assert again.ok
    spill.close()


def test_a_full_disk_is_told(made, broker):
    """O10: `rejected`, `capacity`."""
    broker.down()
    made.dispatch(request())
    with made.held.database.transaction(timeout=5) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    response = made.dispatch(big())

    assert (response.status, response.error.category) == (
        DispatchStatus.REJECTED,
        ErrorCategory.CAPACITY,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of twenty megabytes, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"needs the right to mount a file system: {exc}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("size", [20_000, 300_000])
def test_what_is_held_leaves_a_disk_that_is_full(small_disk, broker, size):
    """O10, F7: handing over writes to the file as well, and nothing more fits by then."""
    spill = at(small_disk, broker)
    kept, last = 0, None
    with broker.down():
        while last is None or last.ok:
            text = {"n": kept, "text": "x" * size}
            batch = [DispatchRequest(task="shop.mail", payload=text) for _ in range(10)]
            answers = spill.dispatch_many(batch)
            kept, last = kept + sum(each.ok for each in answers), answers[-1]
    drained(spill)

    assert (last.status, last.error.category) == (DispatchStatus.REJECTED, ErrorCategory.CAPACITY)
    assert len(got(broker)) == kept > 0
    spill.close()


def test_a_little_of_the_disk_is_left_for_handing_over(made, broker, monkeypatch):
    """O10: also where no test may mount a file system."""

    class Left:
        f_bavail, f_frsize = 3, 4096

    broker.down()
    monkeypatch.setattr(os, "statvfs", lambda path: Left)
    response = made.dispatch(request())

    assert (response.status, response.error.category) == (
        DispatchStatus.REJECTED,
        ErrorCategory.CAPACITY,
    )


def big() -> DispatchRequest:
    return DispatchRequest(task="shop.mail", payload={"text": "x" * 100_000})


def test_the_same_request_is_kept_once(made, broker):
    """F7: a repeat is recognised by its id."""
    broker.down()
    one = request()

    assert [made.dispatch(one).status.value for _ in range(2)] == ["deferred"] * 2
    assert made.held.totals(timeout=5)[0] == 1


def test_deduplication_is_asked_for_when_it_leaves(made, broker):
    """C6: what does not travel in the envelope is kept beside it."""
    with broker.down():
        made.dispatch(request(deduplicate=True))
    drained(made)

    assert broker._book.waiting[0].dispatched.request.deduplicate


def test_hooks_hear_of_it_when_it_is_kept_and_when_it_has_left(made, broker):
    """C4: not of each try in between."""
    heard = []
    hook = hooks.after_dispatch(lambda response: heard.append(response.status.value))
    with broker.down():
        made.dispatch(request())
        for _ in range(3):
            made.forwarder.step()
    drained(made)
    hooks.remove(hook)

    assert heard == ["deferred", "accepted"]


def test_a_process_that_ends_leaves_it_to_the_next(tmp_path, broker):
    """O11: what is held outlives its process, and another one hands it over."""
    spill = at(tmp_path, broker)
    with broker.down():
        spill.dispatch(request(7))
    spill.close(5)
    other = at(tmp_path, broker)
    drained(other)

    assert got(broker) == [7]
    other.close()


def test_a_process_that_ends_in_order_is_waited_for_by_none(tmp_path, broker):
    """O11: another one need not wait for its lease to run out."""
    one, other = at(tmp_path, broker), at(tmp_path, broker)
    with broker.down():
        one.dispatch(request(1))
    one.forwarder.run(lambda: False, drain=True)
    with broker.down():
        one.dispatch(request(2))

    assert other.forwarder.step() is Step.MOVED
    assert got(broker) == [1, 2]
    for each in (one, other):
        each.close()


def test_one_process_at_a_time_hands_over(tmp_path, broker):
    """O7: another one waits while the first gives signs of life, whatever the clock says."""
    one, other = at(tmp_path, broker, lease=1), at(tmp_path, broker, lease=1)
    with broker.down():
        one.dispatch(request())
        one.forwarder.step()
        assert other.forwarder.step() is Step.ELSEWHERE
    clock = Late()
    other.held._watch._clock = clock
    other.forwarder.step()
    clock.ahead = 1.5
    taken = other.forwarder.step()

    assert (taken, got(broker)) == (Step.MOVED, [0])
    for each in (one, other):
        each.close()


def test_a_process_that_slept_settles_nothing(tmp_path, broker):
    """O7: what it handed over meanwhile is handed over again, under the same id: never lost."""
    spill = at(tmp_path, broker)
    with broker.down():
        kept = spill.dispatch(request()).request_id

    def taken_over_meanwhile(given: DispatchRequest) -> bool:
        with spill.held.database.transaction(timeout=5) as connection:
            connection.execute("UPDATE held_by SET owner = 'another'")
        return False

    broker.fail_when(taken_over_meanwhile)
    spill.forwarder.step()
    left = spill.held.totals(timeout=5)[0]
    after = spill.forwarder.step()

    assert (left, after) == (1, Step.ELSEWHERE)
    assert [job.dispatched.request.id for job in broker._book.waiting] == [kept]
    spill.close()


class Late:
    """A monotonic clock that a test moves."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_it_leaves_by_itself_once_the_broker_is_back(tmp_path, broker):
    """F10: by a thread of the process that kept it, without a further dispatch."""
    spill = SpillDispatcher(to=broker, path=str(tmp_path / "spill.db"))
    with broker.down():
        spill.dispatch(request(1))
    processes.wait_until(lambda: got(broker) == [1], "it did not leave")
    processes.wait_until(lambda: spill.held.totals(timeout=5)[0] == 0, "the row stays")
    spill.close(5)


def test_a_dispatch_that_succeeds_wakes_the_forwarder(tmp_path, broker):
    """F10: with the broker back nothing waits for the next probe."""
    spill = SpillDispatcher(to=broker, path=str(tmp_path / "spill.db"))
    with broker.down():
        spill.dispatch(request(1, queue="a"))
        processes.wait_until(lambda: spill.forwarder.is_pausing, "it was not tried")
        spill.forwarder._pause = 1000.0
        time.sleep(0.3)  # it sleeps for the long pause from now on
    spill.dispatch(request(2, queue="b"))
    processes.wait_until(lambda: sorted(got(broker)) == [1, 2], "it waits for the long pause")
    spill.close(5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
def test_a_child_has_none_of_what_its_parent_holds(tmp_path, broker):
    """O15: the file is the parent's to hand over; a child begins nothing by itself."""
    spill = at(tmp_path, broker)
    with broker.down():
        spill.dispatch(request())
        spill.forwarder.step()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                idle = spill.forwarder._thread is None and not spill.forwarder.is_pausing
                code = 0 if idle and spill.forwarder.step() is Step.ELSEWHERE else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    spill.close()


def test_a_failover_may_end_in_a_spill(tmp_path, broker):
    """F3: two brokers, and a file for when both are away."""
    backup = RecordingDispatcher(alias="backup")
    made = FailoverDispatcher(to=[backup, at(tmp_path, broker)])
    with broker.down(), backup.down():
        response = made.dispatch(request())

    assert (response.status, response.dispatcher) == (DispatchStatus.DEFERRED, "kept")
    assert [each.dispatcher for each in response.passed] == ["backup", "broker"]
    made.members[1].close()


def test_figures_tell_what_is_held(made, broker):
    """C12: by lane, with the age of the oldest."""
    broker.down()
    made.dispatch(request(queue="mail"))

    (stats,) = made.stats()
    assert (stats.queue, stats.waiting) == ("mail", 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": 3}, "alias"),
        ({"max_bytes": "many"}, "4 GiB"),
        ({"order": "laen"}, "lane"),
        ({"deadline": 0.1}, "less than half"),
        ({"to": "kept"}, "names itself"),
    ],
)
def test_a_wrong_option_is_an_error_at_once(tmp_path, broker, options, words):
    """C12: with the key and the cure."""
    given = {"to": broker, "path": str(tmp_path / "s.db"), **options}
    with pytest.raises(ConfigurationError, match=words):
        SpillDispatcher(alias="kept", **given)


@pytest.mark.parametrize(("text", "number"), [("4 GiB", 2**32), ("1kB", 1000), (7, 7), ("12", 12)])
def test_sizes_may_be_text(tmp_path, broker, text, number):
    """A size is a number of bytes, or text with its unit."""
    assert at(tmp_path, broker, max_bytes=text).options.max_bytes == number


def test_a_folder_that_is_not_there_is_found_at_the_start(tmp_path, broker):
    """C12: not when the broker is away and the file is wanted."""
    spill = SpillDispatcher(to=broker, path=str(tmp_path / "none" / "spill.db"))

    with pytest.raises(ConfigurationError, match="no directory"):
        spill.check()


MOUNTS = """22 1 0:21 / / rw - overlay overlay rw
23 22 0:22 / /data rw - ext4 /dev/sda1 rw
24 22 0:23 / /run rw - tmpfs tmpfs rw
25 24 0:24 / /run/kept\\040here rw - xfs /dev/sdb1 rw
26 22 0:25 / /shared rw - nfs4 files:/shared rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/spill.db", "overlay"),
        ("/data/spill.db", None),
        ("/database/spill.db", "overlay"),
        ("/run/spill.db", "tmpfs"),
        ("/run/kept here/spill.db", None),
    ],
)
def test_a_path_that_goes_with_the_container_is_known(tmp_path, path, kind):
    """O12: by the mount that it is on."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)

    assert passing_filesystem(path, str(table)) == kind


@pytest.mark.parametrize(("path", "kind"), [("/shared/spill.db", "nfs4"), ("/data/s.db", None)])
def test_a_path_that_machines_share_is_known(tmp_path, path, kind):
    """SQLite's log would not be one for all of them."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)

    assert remote_filesystem(path, str(table)) == kind


def test_doctor_warns_of_a_disk_that_machines_share(made, monkeypatch):
    """As `check` with contact says."""
    monkeypatch.setattr("dispatchers.backends.spill.remote_filesystem", lambda path: "nfs4")
    made.check(contact=True)

    assert any("on nfs4" in each and "local disk" in each for each in made.warnings)


def test_doctor_warns_of_what_waits_and_of_the_disk(made, broker, monkeypatch):
    """O12: `check` with contact says both."""
    monkeypatch.setattr("dispatchers.backends.spill.passing_filesystem", lambda path: "tmpfs")
    monkeypatch.setattr("dispatchers.backends._held_work.STALE", -1.0)
    with broker.down():
        made.dispatch(request())
    made.check(contact=True)

    assert any("tmpfs" in each for each in made.warnings)
    assert any("dispatchers relay kept" in each for each in made.warnings)
