"""Cases of ends: parents are answered, children cancelled, old ones forgotten."""

from __future__ import annotations

import json
import time

from dispatchers.journals import EntryKind, Status

from ._calls import ONE, WORKFLOW, Calls, child, send

CHILD = "shop.child/1"
OTHER = "shop.child/2"


def _family(calls: Calls) -> None:
    """Begin a parent that awaits two children, which are parked."""
    calls.park(child(1), child(2))
    calls.sent(1, 2)
    calls.park(execution=CHILD, begin={"parent": ONE, "parent_number": 1})
    calls.park(execution=OTHER, begin={"parent": ONE, "parent_number": 2})


class Ends:
    """J43 to J48."""

    def test_an_end_answers_the_parent(self, calls: Calls) -> None:
        """J43: in the same commit, with the result or the failure; the parent is woken."""
        _family(calls)

        committed = calls.end(Status.COMPLETED, CHILD, output=b'"receipt"')
        assert (committed.kept, list(committed.entries)) == (False, [])
        assert committed.wake is not None, "the parent is not woken"
        assert committed.wake.execution == ONE
        calls.end(Status.FAILED, OTHER, output=b'{"category":"x"}', why="declined")
        answers = [(e.kind, e.number, e.body) for e in calls.entries(after=2)]
        assert answers == [
            (EntryKind.DONE, 1, b'"receipt"'),
            (EntryKind.FAILED, 2, b'{"category":"x"}'),
        ]
        record = calls.look(OTHER)
        assert (record.status, record.output, record.why, record.wake_at) == (
            Status.FAILED,
            b'{"category":"x"}',
            "declined",
            None,
        )
        assert record.finished_at is not None

    def test_a_parent_is_answered_once(self, calls: Calls) -> None:
        """J44: a command that is answered, and a parent that has ended, stay as they are."""
        _family(calls)
        calls.answer(1, b"other")
        calls.end(execution=CHILD, output=b"1")
        assert [entry.body for entry in calls.entries(after=2)] == [b"other"]
        calls.commit(calls.take(), status=Status.COMPLETED)
        assert calls.end(execution=OTHER, output=b"2").wake is None
        assert len(calls.entries()) == 3

    def test_children_are_cancelled_with_their_parent(self, calls: Calls) -> None:
        """J45: those that run get a `CANCEL` in the same commit, unless the parent completed."""
        for status in (Status.FAILED, Status.CANCELLED, Status.COMPLETED):
            names = {each: f"{each}-{status.name}" for each in ("parent", "running", "ended")}
            calls.park(execution=names["parent"])
            for each in ("running", "ended"):
                calls.park(
                    execution=names[each], begin={"parent": names["parent"], "parent_number": 1}
                )
            calls.end(execution=names["ended"])
            calls.end(status, names["parent"])

            expected = [] if status is Status.COMPLETED else [("CANCEL", None)]
            assert calls.kinds(names["running"]) == expected, f"after {status.name}"
            assert calls.kinds(names["ended"]) == []
        assert len(calls.due()) == 2, "the sweep does not find the children that are to be woken"

    def test_terminate_ends_without_code(self, calls: Calls) -> None:
        """J46: at once, once; the parent gets a failure, running children a `CANCEL`."""
        _family(calls)
        calls.park(execution="shop.grandchild/1", begin={"parent": CHILD, "parent_number": 1})

        found = calls.terminate(CHILD)
        assert found.first
        assert found.wake is not None
        assert found.wake.execution == ONE
        record = calls.look(CHILD)
        assert (record.status, record.why) == (Status.TERMINATED, "by hand")
        assert record.finished_at is not None
        [failed] = calls.entries(after=2)
        assert (failed.kind, failed.number) == (EntryKind.FAILED, 1)
        assert json.loads(failed.body or b"")["category"] == "terminated"
        assert calls.kinds("shop.grandchild/1") == [("CANCEL", None)]
        assert not calls.terminate(CHILD).first, "an ended execution was ended again"

    def test_executions_are_found(self, calls: Calls) -> None:
        """J47: by workflow, status, parent, part of the id, time of creation; youngest first."""
        now = time.time()
        calls.begin("a/100%", at=now - 30, workflow="a")
        calls.begin("a/2", at=now - 20, workflow="a", parent="p/1", parent_number=1)
        calls.begin("b/3", at=now - 10, workflow="b")
        calls.park(execution="b/4", begin={"at": now - 5, "workflow": "b"})
        calls.end(Status.FAILED, "b/4")

        assert calls.find() == ["b/4", "b/3", "a/2", "a/100%"]
        assert calls.find(limit=2) == ["b/4", "b/3"]
        assert calls.find(workflow="a") == ["a/2", "a/100%"]
        assert calls.find(status=[Status.FAILED, Status.STUCK]) == ["b/4"]
        assert calls.find(parent="p/1") == ["a/2"]
        assert calls.find(id_part="/1") == ["a/100%"]
        assert calls.find(id_part="%") == ["a/100%"], "the part of an id is taken as a pattern"
        assert calls.find(before=now - 10) == ["a/2", "a/100%"]

    def test_ended_executions_are_forgotten(self, calls: Calls) -> None:
        """J48: those that ended before the instant, and what is expected in vain; no others."""
        now = time.time()
        for name in ("old", "older", "young", "sending", "running"):
            calls.park(send(1), execution=name)
            if name != "sending":
                calls.sent(1, execution=name)
            if name != "running":
                at = now + 500 if name == "young" else now
                calls.end(execution=name, at=at)
        calls.deliver("a", execution="expected")

        assert calls.forget(now - 500) == 0
        assert calls.forget(now + 100, limit=1) == 1
        assert calls.forget(now + 100) == 2
        assert sorted(calls.find()) == ["running", "sending", "young"]
        gone = "old" if calls.entries("older") else "older"
        assert calls.entries(gone) == [], "entries of a forgotten execution are left"
        assert calls.begin("old").first, "a forgotten execution cannot begin anew"
        assert calls.entries("old") == []
        assert calls.look("running").workflow == WORKFLOW
        assert list(calls.unsent("sending")) == [1]
