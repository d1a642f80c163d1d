"""`dispatchers.redis.Script`: many runs in one round trip, each with a reply of its own."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import redis
from redis import Connection, DataError

from dispatchers.redis import Script, _scripts, bounded_client, within
from dispatchers.testing.faults import FaultProxy
from dispatchers.testing.servers import RedisServer

DEADLINE = 5.0


def fresh(text: str) -> Script:
    """A script that no server knows yet."""
    return Script(f"{text} -- {uuid4().hex}")


def test_each_item_has_its_own_reply(shared_redis: str) -> None:
    """A server that lacks the script gets its text; an error is one item's alone."""
    client = bounded_client(shared_redis)
    script = fresh("return redis.call('ECHO', KEYS[1]) .. 10 / tonumber(ARGV[1])")

    for _ in range(2):
        with within(DEADLINE):
            two, wrong, five = script.run_many(client, [(2,), ("none",), (5,)], keys=["n"])

        assert (two, five) == (b"n5", b"n2")
        assert isinstance(wrong, redis.ResponseError)
    client.close()


def test_one_run_raises_what_the_server_says(private_redis: RedisServer) -> None:
    """It runs again after the server has forgotten it, and raises what comes in its place."""
    client: Any = bounded_client(private_redis.url)
    script = fresh("return tonumber(ARGV[1]) + 1")

    assert script.run(client, (1,), timeout=DEADLINE) == 2
    client.script_flush()
    assert script.run(client, (2,), timeout=DEADLINE) == 3
    with pytest.raises(redis.ResponseError):
        script.run(client, ("none",), timeout=DEADLINE)
    client.close()


def test_what_was_answered_stays_answered(private_redis: RedisServer) -> None:
    """An end half-way is in doubt for the rest only, and the connection is not used again."""
    with FaultProxy("localhost", private_redis.port) as proxy:
        host, port = proxy.address
        client: Any = bounded_client(f"redis://{host}:{port}/0")
        script = fresh("return tonumber(ARGV[1])")
        assert script.run(client, (0,), timeout=DEADLINE) == 0
        proxy.stall(after=len(":1\r\n:2\r\n"))

        with within(0.3):
            *first, third, last = script.run_many(client, [(1,), (2,), (3,), (4,)])

        proxy.heal()
        assert first == [1, 2]
        assert isinstance(third, redis.TimeoutError)
        assert last is third
        assert script.run(client, (5,), timeout=DEADLINE) == 5
        client.close()


@pytest.mark.parametrize(
    "commands",
    [
        [("EVALSHA", "0" * 40, 0, "text: ä", b"bytes \r\n", 1.5, -7)],
        [("EVALSHA", memoryview(b"view"), bytearray(b"array"), "", b"")] * 3,
        [("EVAL", b"x" * 100_000, number) for number in range(5)],
    ],
    ids=["kinds", "rare kinds", "large"],
)
def test_commands_are_packed_as_redis_py_does(commands):
    """Byte for byte: the same is sent, in less time."""
    connection = Connection()

    packed = _scripts._packed(commands, connection.encoder)
    assert b"".join(packed) == b"".join(connection.pack_commands(commands))


def test_what_redis_py_refuses_is_refused():
    """A value that Redis has no kind for is told, not turned into text."""
    with pytest.raises(DataError):
        _scripts._packed([("EVALSHA", True)], Connection().encoder)
