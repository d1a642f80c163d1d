"""Stores in a Redis: claims by key, and dead letters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis as client_library

from dispatchers import DeadLetter, RunFailure, RunSettings, run_envelope, task
from dispatchers.redis import RedisDeadLetters, RedisIdempotencyStore
from dispatchers.stores import dead_letters, idempotency
from dispatchers.testing.conformance._tools import eventually
from dispatchers.testing.servers import free_port

from ...timing import within  # noqa: TID252 - as for the other cases


@pytest.fixture
def place(shared_redis: str) -> Iterator[str]:
    """A part of the shared Redis that is the test's own."""
    prefix = f"stores-{uuid4().hex}"
    yield f"{shared_redis}#{prefix}"
    client: Any = client_library.Redis.from_url(shared_redis)
    for key in client.scan_iter(f"{prefix}:*"):
        client.delete(key)
    client.close()


@pytest.fixture
def claims(place: str) -> RedisIdempotencyStore:
    return RedisIdempotencyStore(place)


@pytest.fixture
def letters(place: str) -> RedisDeadLetters:
    return RedisDeadLetters(place)


# Claims.


def test_claims_are_listed(claims: RedisIdempotencyStore) -> None:
    """A store lists the keys that are done or running, with their end, and no other."""
    for key in ("t:done", "t:running", "t:gone"):
        claims.claim(key, f"owner of {key}", 60.0)
    claims.complete("t:done", "owner of t:done", 60.0)
    claims.release("t:gone", "owner of t:gone")

    found = {each.key: each for each in claims.claims()}

    assert {key: each.state for key, each in found.items()} == {
        "t:done": "done",
        "t:running": "running",
    }
    assert found["t:running"].owner == "owner of t:running"
    assert all(each.until is not None for each in found.values())


def test_the_first_owner_gets_the_key(claims: RedisIdempotencyStore) -> None:
    """C10: one owner runs the work, another is told when to look again."""
    first, second = claims.claim("k", "a", 10), claims.claim("k", "b", 10)

    assert first.state == "claimed"
    assert second.state == "busy"
    assert 0 < second.retry_after <= 10


def test_the_owner_may_claim_again(claims: RedisIdempotencyStore) -> None:
    """An owner whose answer was lost has the key, not a quarrel with itself."""
    claims.claim("k", "a", 10)

    assert claims.claim("k", "a", 10).state == "claimed"


def test_a_completed_key_is_done_for_its_time(claims: RedisIdempotencyStore) -> None:
    """C10: work that was done is not done again, as long as it is remembered."""
    for key, remembered in (("long", 100), ("short", 0.1)):
        claims.claim(key, "a", 10)
        assert claims.complete(key, "a", remembered)

    assert [claims.claim("long", owner, 10).state for owner in "ab"] == ["done", "done"]
    eventually(lambda: claims.claim("short", "b", 10).state == "claimed")


def test_a_stranger_changes_nothing(claims: RedisIdempotencyStore) -> None:
    """C10: a claim is renewed, completed and released by its owner only."""
    claims.claim("k", "a", 10)

    changed = [
        claims.renew("k", "b", 10), claims.complete("k", "b", 10), claims.release("k", "b"),
        claims.renew("none", "b", 10), claims.release("none", "b"),
    ]  # fmt: skip

    assert changed == [False] * 5
    assert claims.renew("k", "a", 10)


def test_what_is_done_stays_done(claims: RedisIdempotencyStore) -> None:
    """Also for its owner."""
    claims.claim("k", "a", 10)
    claims.complete("k", "a", 100)

    changed = [claims.release("k", "a"), claims.renew("k", "a", 10), claims.complete("k", "a", 10)]

    assert changed == [False] * 3


def test_a_released_key_is_free(claims: RedisIdempotencyStore) -> None:
    """C10: a run that failed gives its key back."""
    claims.claim("k", "a", 10)

    assert claims.release("k", "a")
    assert claims.claim("k", "b", 10).state == "claimed"


def test_a_claim_lasts_while_it_is_renewed_and_no_longer(claims: RedisIdempotencyStore) -> None:
    """C10: the key of an owner that died is free after its ttl, and the dead one has lost it."""
    claims.claim("renewed", "a", 1)
    assert claims.renew("renewed", "a", 100)
    busy = claims.claim("renewed", "b", 10)
    claims.claim("dead", "a", 100)
    assert claims.renew("dead", "a", 0.1)

    eventually(lambda: claims.claim("dead", "b", 10).state == "claimed")

    assert (busy.state, busy.retry_after > 50) == ("busy", True)
    assert not claims.renew("dead", "a", 10)


def test_one_of_many_threads_gets_the_key(claims: RedisIdempotencyStore) -> None:
    """C8: claims are decided by the server."""
    with ThreadPoolExecutor(8) as threads:
        states = list(threads.map(lambda n: claims.claim("k", str(n), 10).state, range(80)))

    assert states.count("claimed") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_has_connections_of_its_own(claims: RedisIdempotencyStore) -> None:
    """C8: parent and child go on, each with its own answers."""
    claims.claim("k", "parent", 10)

    if (pid := os.fork()) == 0:
        good = all(claims.claim("k", f"child {n}", 10).state == "busy" for n in range(100))
        os._exit(0 if good else 1)
    states = {claims.claim("k", "parent", 10).state for _ in range(100)}

    assert os.waitpid(pid, 0)[1] == 0
    assert states == {"claimed"}


def test_a_repeated_delivery_runs_once(place: str) -> None:
    """C10: configured by the server's address, on whatever backend."""
    runs: list[int] = []

    @task(name="shop.count_in_redis")
    def count() -> None:
        runs.append(1)

    from dispatchers._models.envelope import encode

    body = encode(count.request())
    settings = RunSettings(idempotency=idempotency(place))
    reasons = [run_envelope(body, settings=settings).reason.value for _ in range(3)]

    assert reasons == ["succeeded", "duplicate", "duplicate"]
    assert runs == [1]


def test_a_key_with_other_arguments_is_a_conflict(place: str) -> None:
    """C10: two machines share the store, and what was done under the key was another call."""

    @task(name="shop.keyed_in_redis")
    def mail(address: str) -> None:
        """Nothing."""

    from dispatchers._models.envelope import encode

    keyed = mail.options(idempotency_key="w-42")
    settings = RunSettings(idempotency=idempotency(place))
    bodies = [encode(keyed.request(address)) for address in ("a", "b", "a")]
    reasons = [run_envelope(body, settings=settings).reason.value for body in bodies]

    assert reasons == ["succeeded", "conflict", "duplicate"]


def test_a_server_that_is_down_is_told_in_time() -> None:
    """C2: a store has a bound as well."""
    store = RedisIdempotencyStore(f"redis://localhost:{free_port()}/0", timeout=0.5)

    with within(0.5), pytest.raises(client_library.ConnectionError):
        store.claim("k", "a", 10)


# Dead letters.


def letter(letter_id: str = "a", **values: Any) -> DeadLetter:
    values = {"task": "shop.mail", "reason": "exhausted", "body": b"{}"} | values
    return DeadLetter(id=letter_id, **values)


def test_a_letter_comes_out_as_it_went_in(letters: RedisDeadLetters) -> None:
    """A kept letter has all that it had, to the microsecond and the byte."""
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


def test_the_newest_letters_come_first_of_any_number(letters: RedisDeadLetters) -> None:
    """More than are read at once; one of the same id is replaced."""
    start = datetime(2026, 5, 1, tzinfo=UTC)
    for n in range(250):
        letters.add(letter(str(n), died_at=start + timedelta(seconds=n), queue=f"q{n % 2}"))
    letters.add(letter("0", died_at=start + timedelta(days=1)))

    found = letters.list(limit=1000)

    assert [each.id for each in found] == ["0", *map(str, range(249, 0, -1))]
    assert [each.id for each in letters.list(limit=2, queue="q1")] == ["249", "247"]
    assert letters.list(task="shop.other") == []


def test_letters_are_edited_and_deleted(letters: RedisDeadLetters) -> None:
    """And what is not there is not."""
    letters.add(letter())

    assert letters.edit("a", b"new\xff")
    assert letters.get("a") == letter(body=b"new\xff", died_at=letters.list()[0].died_at)
    assert letters.delete("a")
    assert not letters.delete("a")
    assert not letters.edit("a", b"x")
    assert letters.get("a") is None
    assert letters.list() == []


def test_a_store_is_named_by_its_server(place: str) -> None:
    """One instance per process and address."""
    store = dead_letters(place)

    store.add(letter())

    assert dead_letters(place) is store
    assert [each.id for each in RedisDeadLetters(place).list()] == ["a"]
    assert RedisDeadLetters(place.replace("#", "#other-")).list() == []
