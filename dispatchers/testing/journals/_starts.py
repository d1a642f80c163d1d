"""Cases of starts: recorded once, with what came before."""

from __future__ import annotations

from dispatchers.journals import EntryKind, Refusal, Status

from ._calls import ONE, Calls, at_once, start
from ._harness import JournalHarness


class Starts:
    """J1 to J7."""

    def test_a_start_is_recorded_once(self, calls: Calls) -> None:
        """J1: the first start counts; a second one changes nothing and says so."""
        assert calls.begin(input=b"first", queue="q").first, "the first start is not `first`"
        assert not calls.begin(input=b"second", queue="other").first, "a second start is `first`"

        record = calls.look()
        assert (record.input, record.queue) == (b"first", "q"), "a second start changed the first"
        assert record.status is Status.RUNNING

    def test_all_of_a_start_is_read_back(self, calls: Calls) -> None:
        """J2: every field of a start comes back as it was, bytes as bytes, instants exactly."""
        given = start(
            "shop.bestellung/ä-7",
            workflow="shop.bestellung",
            version=3,
            dispatcher="warehouse",
            queue="mail",
            headers=b'{"traceparent":"00"}',
            input=b"\x00\xff{}",
            at=1795984225.805,
            parent="shop.parent/1",
            parent_number=4,
        )
        calls.journal.begin(given, timeout=20)

        record = calls.look(given.execution)
        fields = {name: value for name, value in given._asdict().items() if hasattr(record, name)}
        assert {name: getattr(record, name) for name in fields} == fields
        assert (record.id, record.created_at, record.started_at) == (
            given.execution,
            given.at,
            given.at,
        )
        assert (record.head, record.seen, record.first, record.finished_at) == (0, 0, 0, None)

    def test_one_of_eight_threads_starts_it(self, calls: Calls) -> None:
        """J3: the same start on eight threads at once is `first` exactly once."""
        answers = at_once(8, lambda index: calls.begin(input=b"%d" % index))

        assert sum(answer.first for answer in answers) == 1, "not exactly one start was `first`"

    def test_signals_may_come_before_the_start(self, calls: Calls) -> None:
        """J4: they are kept in order, wake nothing, and the first turn reads them."""
        for source in ("a", "b", "c"):
            assert calls.deliver(source, source.encode()).wake is None, "it has not begun: no wake"
        assert calls.look().status is Status.EXPECTED
        assert calls.try_take() is Refusal.MISSING, "an execution that has not begun gave a turn"

        assert calls.begin().first, "early signals made the start a repetition"
        assert [entry.body for entry in calls.take().entries] == [b"a", b"b", b"c"]

    def test_a_start_wakes_until_a_turn_was_committed(self, calls: Calls) -> None:
        """J5: a start that comes again, its worker gone, still says that a turn is wanted."""
        wake = calls.begin(queue="q", headers=b'{"a":"b"}').wake
        assert wake is not None, "a start gives no wake"
        assert (wake.execution, wake.dispatcher, wake.queue, wake.headers) == (
            ONE,
            "default",
            "q",
            b'{"a":"b"}',
        )
        assert calls.begin().wake is not None, "no turn was taken yet"
        turn = calls.take()
        assert calls.begin().wake is not None, "no turn was committed yet"

        calls.commit(turn)
        assert calls.begin().wake is None, "a turn was committed: nothing is wanted"

    def test_a_child_of_what_was_cancelled_begins_cancelled(self, calls: Calls) -> None:
        """J6: a child that starts late, its parent gone, gets a `CANCEL` with its start."""
        for number, status in enumerate((Status.FAILED, Status.CANCELLED, Status.COMPLETED)):
            parent = f"shop.parent/{number}"
            calls.park(execution=parent)
            calls.end(status, parent)
            calls.begin(f"shop.child/{number}", parent=parent, parent_number=1)
        calls.park(execution="shop.parent/3")
        calls.terminate("shop.parent/3")
        calls.begin("shop.child/3", parent="shop.parent/3", parent_number=1)

        kinds = [[each.kind for each in calls.entries(f"shop.child/{n}")] for n in range(4)]
        cancel = [EntryKind.CANCEL]
        assert kinds == [cancel, cancel, [], cancel]

    def test_an_execution_that_is_not_there(self, calls: Calls, harness: JournalHarness) -> None:
        """J7: reads give nothing, a turn is `MISSING`, no call makes it appear."""
        calls.begin()
        turn = calls.take()
        missing = turn._replace(record=turn.record._replace(id="shop.checkout/none"))

        assert calls.try_take("shop.checkout/none") is Refusal.MISSING
        assert calls.try_commit(missing) is Refusal.MISSING
        assert calls.renew(missing) is False
        calls.release(missing)
        calls.sent(1, execution="shop.checkout/none")
        assert not calls.answer(1, execution="shop.checkout/none").first
        assert not calls.terminate("shop.checkout/none").first
        assert not calls.resume("shop.checkout/none").first
        assert calls.entries("shop.checkout/none") == []
        assert calls.unsent("shop.checkout/none") == {}
        journal = harness.journal()
        assert journal.look("shop.checkout/none", timeout=20) is None
