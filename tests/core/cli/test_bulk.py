"""`dispatch --from` and `claims`: many at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers import IdempotencyStore
from dispatchers.sqlite import SQLiteIdempotencyStore
from dispatchers.stores import MemoryIdempotencyStore

from .conftest import SHOP, Shop

QUEUE = f'{SHOP}default = {{ backend = "sqlite", path = "work.sqlite3" }}\n'


def test_rows_are_dispatched_in_batches(shop: Shop) -> None:
    """`dispatch TASK --from FILE` hands over one call per line, with the options of the command."""
    shop.configure(QUEUE)
    rows = [json.dumps({"user_id": number}) for number in range(1200)]
    (shop.folder / "rows.jsonl").write_text("\n".join([*rows, "", ""]))

    said = shop("dispatch", "shop.welcome", "--from", "rows.jsonl", "--queue", "bulk")

    (queue,) = [
        each
        for place in json.loads(shop("status", "--json").out)
        for each in place["queues"]
        if each["queue"] == "bulk"
    ]
    assert said.code == 0
    assert "1200 of 1200 dispatched" in said.out
    assert queue["waiting"] == 1200


def test_rows_that_do_not_fit_are_told_by_line(shop: Shop) -> None:
    """A line that does not fit is told with its number; the others are handed over."""
    shop.configure(QUEUE)
    lines = ['{"user_id": 1}', "nonsense", '{"user_id": "x"}', "[1]", '{"user_id": 2}']
    (shop.folder / "rows.jsonl").write_text("\n".join(lines))

    said = shop("dispatch", "shop.welcome", "--from", "rows.jsonl")
    found = json.loads(shop("dispatch", "shop.welcome", "--from", "rows.jsonl", "--json").out)

    assert said.code == 1
    assert "line 2: rejected: is not JSON" in said.err
    assert "line 3: rejected: task 'shop.welcome': argument 'user_id'" in said.err
    assert "2 of 5 dispatched" in said.out
    assert (found["rows"], found["dispatched"]) == (5, 2)
    assert [each["line"] for each in found["failures"]] == [2, 3, 4]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["shop.welcome", "--from", "missing"], "'missing' cannot be read"),
        (["shop.welcom", "--from", "-"], "did you mean 'shop.welcome'"),
        (["shop.welcome", "--from", "-", "--key", "k"], "--from takes the arguments"),
        (["shop.welcome", "user_id=1", "--from", "-"], "--from takes the arguments"),
    ],
)
def test_bulk_that_cannot_be_meant_is_refused(shop: Shop, argv: list[str], words: str) -> None:
    """What cannot be meant with --from is refused before anything is handed over."""
    said = shop("dispatch", *argv)

    assert said.code == 2
    assert words in said.err


# Claims.


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IdempotencyStore]:
    if request.param == "memory":
        yield MemoryIdempotencyStore()
    else:
        found = SQLiteIdempotencyStore(tmp_path / "keys.db")
        yield found
        found.close()


def test_a_store_lists_its_claims(store: IdempotencyStore) -> None:
    """A store lists the keys that are done or running, and no other."""
    for key in ("t:done", "t:running", "t:gone"):
        store.claim(key, f"owner of {key}", 60.0)
    store.complete("t:done", "owner of t:done", 60.0)
    store.release("t:gone", "owner of t:gone")

    found = {each.key: each for each in store.claims()}  # type: ignore[attr-defined] # optional

    assert {key: each.state for key, each in found.items()} == {
        "t:done": "done",
        "t:running": "running",
    }
    assert found["t:running"].owner == "owner of t:running"
    assert found["t:done"].until.utcoffset().total_seconds() == 0


def test_claims_are_shown_by_key_state_and_time(shop: Shop) -> None:
    """`claims` shows each key with its state and end; a page says when there are more."""
    shop.configure(f'{SHOP}default = {{ backend = "inline", idempotency = "sqlite:keys.db" }}\n')
    store = SQLiteIdempotencyStore(shop.folder / "keys.db")
    for number in range(120):
        store.claim(f"shop.welcome:{number:03}", "owner", 60.0)
    store.complete("shop.welcome:000", "owner", 3600.0)
    store.close()

    said = shop("claims", "--limit", "2")
    page = shop("claims")
    one = json.loads(shop("claims", "--json", "--key", ":000").out)

    assert said.out.splitlines()[1].split()[:2] == ["shop.welcome:000", "done"]
    assert said.out.splitlines()[2].split()[:3] == ["shop.welcome:001", "running", "-"]
    assert "there are more than these 100" in page.err
    assert len(json.loads(shop("claims", "--json").out)) == 120
    assert [each["state"] for each in one] == ["done"]
    assert one[0]["until"].endswith("+00:00")


def test_claims_without_a_store_are_refused(shop: Shop) -> None:
    """Without a store, `claims` says how to name one."""
    said = shop("claims")

    assert said.code == 2
    assert 'idempotency = "sqlite:PATH"' in said.err
