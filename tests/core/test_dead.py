"""Dead letters: what failed for good is kept, and never shown by accident."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from dispatchers import DeadLetter, RunFailure
from dispatchers._stores.memory import MemoryDeadLetters

AT = datetime(2024, 1, 1, tzinfo=UTC)


def letter(number: int = 1, **values: Any) -> DeadLetter:
    return DeadLetter(
        **{
            "id": f"id-{number}",
            "task": "shop.send",
            "queue": "mail",
            "reason": "exhausted",
            "died_at": AT,
            "body": b'{"password":"s3cret"}',
            **values,
        }
    )


def test_a_letter_round_trips_through_json():
    """Any bytes may have stood in the queue."""
    found = letter(
        body=b"\x00\xff not JSON",
        attempts=3,
        deliveries=2,
        error=RunFailure(kind="dns", exception_type="socket.gaierror", message="ü"),
    )

    assert DeadLetter.model_validate_json(found.model_dump_json()) == found


def test_a_letter_hides_its_body():
    """C4: it is somebody's payload."""
    assert "s3cret" not in f"{letter()!r} {letter()!s}"


def test_a_letter_is_frozen_and_strict():
    """As every value that crosses a boundary."""
    with pytest.raises(ValidationError):
        letter().task = "other"
    for wrong in (
        {"body": "text"},
        {"attempts": "3"},
        {"more": 1},
        {"died_at": datetime(2024, 1, 1)},
    ):
        with pytest.raises(ValidationError) as caught:
            letter(**wrong)
        assert "s3cret" not in str(caught.value)


def test_the_time_of_death_is_noted():
    """Aware UTC."""
    found = DeadLetter(id="a", task="t", reason="expired", body=b"")

    assert found.died_at.tzinfo is UTC


def test_the_newest_come_first():
    """And as many as are asked for."""
    store = MemoryDeadLetters()
    for number in range(5):
        store.add(letter(number))

    assert [each.id for each in store.list()] == [f"id-{n}" for n in (4, 3, 2, 1, 0)]
    assert [each.id for each in store.list(limit=2)] == ["id-4", "id-3"]
    assert store.list(limit=0) == []


def test_letters_are_found_by_task_and_queue():
    """Both, either or none."""
    store = MemoryDeadLetters()
    for number, (task, queue) in enumerate([("a", "x"), ("a", "y"), ("b", "x")]):
        store.add(letter(number, task=task, queue=queue))

    def found(**values: Any) -> list[str]:
        return [each.id for each in store.list(**values)]

    assert found(task="a") == ["id-1", "id-0"]
    assert found(queue="x") == ["id-2", "id-0"]
    assert found(task="a", queue="x") == ["id-0"]
    assert found(task="c") == []
    assert found(task="a", limit=1) == ["id-1"]


def test_a_letter_that_is_there_already_is_replaced():
    """Work that died again is one letter, the newest."""
    store = MemoryDeadLetters()
    store.add(letter(1))
    store.add(letter(2))

    store.add(letter(1, attempts=7))

    assert [(each.id, each.attempts) for each in store.list()] == [("id-1", 7), ("id-2", 1)]


def test_a_letter_can_be_looked_at_edited_and_deleted():
    """Whatever is not there is said so."""
    store = MemoryDeadLetters()
    store.add(letter(1))

    edited = store.edit("id-1", b"{}")

    assert edited
    assert store.get("id-1") == letter(1, body=b"{}")
    assert store.delete("id-1")
    assert store.get("id-1") is None
    assert not store.edit("id-1", b"{}")
    assert not store.delete("id-1")


def test_the_oldest_go_when_there_are_too_many():
    """Bounded growth."""
    store = MemoryDeadLetters(limit=3)

    for number in range(5):
        store.add(letter(number))

    assert [each.id for each in store.list()] == ["id-4", "id-3", "id-2"]


def test_many_threads_may_add_and_list():
    """C8."""
    store = MemoryDeadLetters()

    def work(number: int) -> None:
        for each in range(100):
            store.add(letter(number * 100 + each))
            store.list(limit=5)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store.list(limit=1000)) == 400
