"""The story of an execution: lines for people, and the file that tests replay."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from dispatchers import ConfigurationError, DispatchRequest
from dispatchers._journal.values import Command, Entry, EntryKind, Record, Status, Unsent
from dispatchers._models.envelope import encode
from dispatchers.workflows._export import exported, read_export
from dispatchers.workflows._story import Line, story, waits_for

AT = 1_800_000_000.0


def envelope(task: str, **payload: Any) -> bytes:
    return encode(DispatchRequest(task=task, id=f"id-of-{task[5:]}", payload=payload))


def record(**values: Any) -> Record:
    fields = dict.fromkeys(Record._fields) | {
        "id": "shop.checkout/order-7",
        "workflow": "shop.checkout",
        "version": 1,
        "status": Status.RUNNING,
        "dispatcher": "default",
        "headers": b"{}",
        "input": envelope("shop.checkout", order=7),
        "first": 0,
        "head": 0,
        "seen": 0,
        "fence": 1,
        "generation": 0,
        "started_at": AT,
        "created_at": AT,
        "updated_at": AT,
    }
    return Record(**{**fields, **values})


def entries(*given: dict[str, Any]) -> list[Entry]:
    empty = dict.fromkeys(Entry._fields)
    return [Entry(**{**empty, "seq": n, "at": AT + n, **each}) for n, each in enumerate(given, 1)]


def step(number: int, **payload: Any) -> dict[str, Any]:
    name = "shop.charge"
    body = envelope(name, **payload)
    return {"kind": EntryKind.STEP, "number": number, "name": name, "digest": b"\1", "body": body}


def done(number: int, value: object = None) -> dict[str, Any]:
    return {"kind": EntryKind.DONE, "number": number, "body": json.dumps(value).encode()}


def words(lines: list[Line]) -> list[str]:
    return [str(each).strip() for each in lines]


def local(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def test_a_step_and_its_answer_are_one_line() -> None:
    """A command has its arguments, and what came of it."""
    found = story(record(), entries(step(1, order=7), done(1, {"id": "p"})))

    assert words(found) == [
        "began shop.checkout(order=7), version 1",
        '1  step shop.charge(order=7) -> done in 1 s: {"id":"p"}',
    ]


def test_every_kind_has_its_words() -> None:
    """Each kind of entry is told in words of its own."""
    failed = {"exception_type": "shop.Declined", "message": "no money", "attempts": 3}
    found = story(
        record(head=13, seen=13, wake_at=AT + 9000),
        entries(
            step(1, order=7),
            {"kind": EntryKind.FAILED, "number": 1, "body": json.dumps(failed).encode()},
            {"kind": EntryKind.LOCAL, "number": 2, "name": "fetch_rate"},
            done(2, 1.5),
            {"kind": EntryKind.TIMER, "number": 3, "name": repr(AT + 60)},
            {"kind": EntryKind.FIRED, "number": 3, "at": AT + 65},
            {
                "kind": EntryKind.CHILD,
                "number": 4,
                "name": "shop.invoice",
                "body": envelope("shop.invoice", order=7),
            },
            done(4),
            {
                "kind": EntryKind.SEND,
                "number": 5,
                "name": "shop.mail",
                "body": envelope("shop.mail", to="ada"),
            },
            {"kind": EntryKind.MARK, "number": 6, "name": "new-discount"},
            {"kind": EntryKind.SIGNAL, "name": "approval", "body": b'{"ok":true}', "source": "r-1"},
            {"kind": EntryKind.TIMER, "number": 7, "name": repr(AT + 9000)},
            {"kind": EntryKind.CANCEL, "name": "he called", "source": "r-2"},
        ),
    )

    assert words(found)[1:] == [
        "1  step shop.charge(order=7) -> failed after 1 s: shop.Declined: no money (3 attempts)",
        "2  local fetch_rate -> done: 1.5",
        f"3  timer until {local(AT + 60)} -> fired 5 s late",
        "4  child shop.invoice/id-of-invoice -> done in 1 s",
        '5  dispatch shop.mail(to="ada") -> handed over',
        "6  patched new-discount",
        'signal approval {"ok":true}, by request r-1',
        "cancel: he called, by request r-2",
        f"7  timer until {local(AT + 9000)} -> not fired yet",
    ]


def test_what_is_open_comes_last() -> None:
    """What is waited for stands at the end, and is said in a sentence."""
    given = entries(step(1, order=7), step(2, order=8), done(2))
    found = story(record(head=3, seen=3), given)

    assert words(found)[-1] == "1  step shop.charge(order=7) -> not answered yet"
    assert waits_for(record(head=3, seen=3), found) == "step shop.charge (1)"


def test_what_an_execution_waits_for() -> None:
    """It waits for commands, a signal, a turn, its start, the right code, or for nothing."""
    assert waits_for(record(), []) == "a signal"
    assert waits_for(record(head=2, seen=1), []) == "a turn of a worker"
    assert waits_for(record(status=Status.EXPECTED), []) == "its start"
    assert waits_for(record(status=Status.STUCK), []) == "code that is mended"
    assert waits_for(record(status=Status.COMPLETED), []) == ""


def test_a_timer_before_the_one_that_wakes_is_not_awaited() -> None:
    """A timer that was cancelled is no reason to wait."""
    timer = {"kind": EntryKind.TIMER, "number": 1, "name": repr(AT + 60)}
    known = record(head=1, seen=1)

    found = story(known, entries(timer))

    assert words(found)[-1].endswith("not awaited any more")
    assert waits_for(known, found) == "a signal"


def test_timers_from_the_one_that_wakes_are_awaited() -> None:
    """The earliest timer that is awaited is known: those before it were cancelled."""
    first = {"kind": EntryKind.TIMER, "number": 1, "name": repr(AT + 60)}
    second = {"kind": EntryKind.TIMER, "number": 2, "name": repr(AT + 9000)}
    known = record(head=2, seen=2, wake_at=AT + 9000)

    found = story(known, entries(first, second))

    assert [each.outcome for each in found[1:]] == ["not awaited any more", "not fired yet"]
    assert waits_for(known, found) == f"timer until {local(AT + 9000)} (2)"


def test_a_command_that_has_not_left() -> None:
    """K9: a command that the broker did not take says when it is tried again."""
    body = envelope("shop.charge", order=7)
    unsent = Unsent(Command(1, EntryKind.STEP, "shop.charge", b"", body), AT + 30)

    found = story(record(head=1, seen=1), entries(step(1, order=7)), [unsent])

    assert f"-> not handed over yet, tried again {local(AT + 30)}" in words(found)[-1]


def test_a_command_that_may_have_been_forgotten() -> None:
    """K24: a command that a process took, and may have lost, is told from one that has not left."""
    body = envelope("shop.charge", order=7)
    unsent = Unsent(Command(1, EntryKind.STEP, "shop.charge", b"", body), AT + 30, left=True)

    found = story(record(head=1, seen=1), entries(step(1, order=7)), [unsent])

    assert f"-> not answered yet, handed over once more {local(AT + 30)}" in words(found)[-1]


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ({"status": Status.COMPLETED, "output": b'"done"'}, 'completed -> "done"'),
        ({"status": Status.FAILED, "why": "shop.Declined: no money"}, "failed -> shop.Declined"),
        ({"status": Status.CANCELLED, "why": "he called"}, "cancelled -> he called"),
        ({"status": Status.TERMINATED, "why": "by hand"}, "terminated -> by hand"),
        ({"status": Status.STUCK, "why": "command 1 was ..."}, "stuck -> command 1 was"),
    ],
)
def test_the_end_is_the_last_line(values: dict[str, Any], last: str) -> None:
    """An execution that has ended, or is stuck, says why in its last line."""
    assert last in words(story(record(**values), []))[-1]


def test_values_are_shortened_unless_they_are_asked_for() -> None:
    """C4: arguments are shortened, and whole where an operator asks for all of them."""
    given = entries(step(1, text="x" * 200, more=["y"] * 100), done(1, "z" * 200))

    short, whole = story(record(), given), story(record(), given, whole=True)

    assert all(len(each.words) < 200 for each in short)
    assert '..., more=["y"' in short[1].text
    assert "x" * 200 in whole[1].text
    assert "z" * 200 in whole[1].outcome


def test_strange_entries_are_told_all_the_same() -> None:
    """Bodies that are no JSON, and instants beyond the calendar, do not hide an execution."""
    given = entries(
        {"kind": EntryKind.STEP, "number": 1, "name": "a", "body": b"\xff"},
        {"kind": EntryKind.FAILED, "number": 1, "body": b"\xff"},
        {"kind": EntryKind.TIMER, "number": 2, "name": "1e300"},
        {"kind": EntryKind.CHILD, "number": 3, "name": "b", "body": None},
        {"kind": EntryKind.CANCEL},
    )

    assert len(story(record(input=b""), given)) == 5


# Files.


def test_an_export_is_read_back() -> None:
    """What was exported is read back, byte for byte where it was written so."""
    given = entries(
        step(1, order=7), done(1), {"kind": EntryKind.SIGNAL, "name": "a", "body": b"\xff"}
    )
    known = record(status=Status.COMPLETED, output=b"null", head=3, finished_at=AT + 3)

    text = json.dumps(exported(known, given), indent=2)

    assert read_export(text) == (known, given)


def test_an_export_of_what_is_expected_is_read_back() -> None:
    """An execution before its start has no envelope."""
    known = record(status=Status.EXPECTED, input=b"", headers=b"")

    assert read_export(json.dumps(exported(known, []))).record == known


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is no exported execution"),
        ('{"format": "dispatchers.execution", "version": 2}', "version 2"),
        ('{"format": "dispatchers.execution", "version": 1}', "is damaged"),
        (
            '{"format": "dispatchers.execution", "version": 1, "execution": {"status": "odd"}}',
            "is damaged",
        ),
    ],
)
def test_what_is_no_export_is_refused_with_the_cure(text: str, words: str) -> None:
    """A file that is no export is refused, and the message says what to do."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_export(text, "history.json")

    assert "history.json" in str(caught.value)
