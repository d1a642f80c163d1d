"""Dead letters of any backend, kept in a file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DeadLetter, RunFailure
from dispatchers._stores.loading import dead_letters
from dispatchers.sqlite import QueueDeadLetters, SQLiteDeadLetters, StoreConflictError


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[SQLiteDeadLetters]:
    store = SQLiteDeadLetters(tmp_path / "dead.db")
    yield store
    store.close()


def letter(letter_id: str = "a", **values: Any) -> DeadLetter:
    values = {"task": "shop.mail", "reason": "exhausted", "body": b"{}"} | values
    return DeadLetter(id=letter_id, **values)


def test_a_letter_comes_out_as_it_went_in(letters: SQLiteDeadLetters) -> None:
    """A kept letter has all that it had, to the microsecond."""
    kept = letter(
        queue="mail",
        attempts=3,
        deliveries=2,
        error=RunFailure(kind="dns", exception_type="socket.gaierror", message="ä", where="x:1"),
        died_at=datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC),
        body=b"\x00no envelope\xff",
    )

    letters.add(kept)

    assert letters.get("a") == kept
    assert letters.list() == [kept]


def test_a_letter_without_an_error_has_none(letters: SQLiteDeadLetters) -> None:
    """What is not known is not made up."""
    letters.add(letter())

    found = letters.get("a")

    assert found is not None
    assert found.error is None


def test_the_same_id_is_replaced(letters: SQLiteDeadLetters) -> None:
    """A letter that comes again takes the place of the first."""
    letters.add(letter(attempts=1))

    letters.add(letter(attempts=2))

    assert [found.attempts for found in letters.list()] == [2]


def test_letters_are_listed_newest_first(letters: SQLiteDeadLetters) -> None:
    """The list is by time of death, and can be bounded and filtered."""
    for number in range(4):
        died_at = datetime(2026, 1, 1 + number, tzinfo=UTC)
        letters.add(letter(f"{number}", task=f"t{number % 2}", queue="q", died_at=died_at))

    listed = [
        [found.id for found in letters.list(**filters)]
        for filters in ({}, {"limit": 1}, {"task": "t0"}, {"queue": "none"})
    ]

    assert listed == [["3", "2", "1", "0"], ["3"], ["2", "0"], []]


def test_letters_are_edited_and_deleted(letters: SQLiteDeadLetters) -> None:
    """An envelope can be mended, a letter forgotten; both say whether it was there."""
    letters.add(letter())

    changed = [letters.edit("a", b"new"), letters.edit("b", b"new")]
    found = letters.get("a")
    gone = [letters.delete("a"), letters.delete("a")]

    assert changed == [True, False]
    assert found is not None
    assert found.body == b"new"
    assert gone == [True, False]
    assert letters.get("a") is None


def test_only_a_queues_own_letters_are_replayed_in_the_file(tmp_path: Path) -> None:
    """Letters of other backends are dispatched again through those: their store has no replay."""
    store = dead_letters(f"sqlite:{tmp_path / 'dead.db'}")

    assert isinstance(store, SQLiteDeadLetters)
    assert not hasattr(store, "replay")
    store.close()


def test_a_replay_beside_newer_work_of_its_key_says_so(desk: Any) -> None:
    """C10: replaying is refused while other work has the key."""
    from dispatchers.sqlite import Finish

    store = desk.open()
    owner = store.owners.register(timeout=1)
    store.put(desk.job("a", key="k"), timeout=1)
    [job] = store.exchange([], owner=owner, queues=None, limit=1, timeout=1).jobs
    store.exchange([Finish.dead(job, reason="x")], owner=owner, queues=None, limit=0, timeout=1)
    store.put(desk.job("b", key="k"), timeout=1)

    with pytest.raises(StoreConflictError, match="newer job"):
        QueueDeadLetters(store.database).replay("a")


def test_a_letter_that_is_no_envelope_is_replayed_as_it_is(desk: Any) -> None:
    """What cannot be read is queued again unchanged: a newer worker may understand it."""
    store = desk.open()
    letters = QueueDeadLetters(store.database)
    letters.add(letter(queue="q", body=b"???"))
    owner = store.owners.register(timeout=1)

    replayed = [letters.replay("a"), letters.replay("a")]
    [job] = store.exchange([], owner=owner, queues=["q"], limit=5, timeout=1).jobs

    assert replayed == [True, False]
    assert job.body == b"???"
