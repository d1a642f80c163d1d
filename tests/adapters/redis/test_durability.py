"""`dispatchers.redis.durability`: the part of "durable" that a server's settings leave true."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis

from dispatchers import override
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.cli._doctor import findings
from dispatchers.redis import DurabilityWatch, bounded_client, durability, within
from dispatchers.testing.servers import RedisServer


@pytest.fixture
def client(private_redis: RedisServer) -> Any:
    return redis.Redis(port=private_redis.port)


def set_all(client: Any, **settings: str) -> None:
    for name, value in settings.items():
        if name == "replicaof":
            client.replicaof(*value.split())
        else:
            client.config_set(name.replace("_", "-"), value)


KEEPS = {"appendonly": "yes", "save": ""}


@pytest.mark.parametrize(
    ("settings", "durable", "word"),
    [
        (KEEPS, True, None),
        ({**KEEPS, "maxmemory_policy": "allkeys-lru"}, True, None),  # without a limit
        ({**KEEPS, "maxmemory": "1gb"}, True, None),
        ({**KEEPS, "maxmemory": "1gb", "maxmemory_policy": "allkeys-lru"}, False, "noeviction"),
        ({**KEEPS, "maxmemory": "1gb", "maxmemory_policy": "allkeys-random"}, False, "noeviction"),
        ({**KEEPS, "maxmemory": "1gb", "maxmemory_policy": "volatile-ttl"}, True, "dead letters"),
        ({"appendonly": "no", "save": ""}, False, "nothing on disk"),
        ({"appendonly": "no", "save": "900 1"}, True, "save points"),
        ({**KEEPS, "replicaof": "127.0.0.1 1"}, False, "replica"),
    ],
)
def test_settings_that_lose_accepted_work_are_told(
    client: Any, settings: dict[str, str], durable: bool, word: str | None
) -> None:
    """C9: `durable` is false where the server evicts, forgets or copies over accepted work."""
    set_all(client, **settings)

    found = durability(client)
    client.close()

    assert found.durable is durable
    assert bool(found.warnings) is (word is not None)
    assert (word or "") in "".join(found.warnings)


def test_a_replica_that_takes_no_writes_is_told_apart(client: Any) -> None:
    """C12: every dispatch to it would be refused."""
    set_all(client, replicaof="127.0.0.1 1")

    found = durability(client)
    client.close()

    assert found.refuses_writes


def test_a_server_that_forbids_the_question_is_not_known(private_redis: RedisServer) -> None:
    """A user without `INFO` and `CONFIG` leaves durability unknown."""
    owner = redis.Redis(port=private_redis.port)
    owner.execute_command("ACL", "SETUSER", "app", "on", ">word", "~*", "+@all", "-@dangerous")
    client = redis.Redis(port=private_redis.port, username="app", password="word")

    found = durability(client)
    owner.close()
    client.close()

    assert (found.durable, found.warnings) == (None, ())


def test_the_answer_is_kept_and_asked_again(private_redis: RedisServer) -> None:
    """A send pays for the question once a minute, and never fails by it."""
    owner = redis.Redis(port=private_redis.port)
    set_all(owner, appendonly="no", save="")
    owner.close()
    client = bounded_client(private_redis.url)
    watch = DurabilityWatch(client)

    with within(2.0):
        first = watch.durable()
    private_redis.kill()
    with within(2.0):
        kept = watch.durable()
        watch._asked = float("-inf")
        unreachable = watch.durable()

    assert (first, kept, unreachable) == (False, False, None)


def test_it_can_be_imported_without_redis_py() -> None:
    """Names that need redis-py tell the command that installs it; the rest works without."""
    code = """
import sys
sys.modules["redis"] = None
from dispatchers import MissingDependencyError
from dispatchers.redis import category_of, is_certainly_unsent, within
assert category_of(ValueError()) is None and not is_certainly_unsent(ValueError())
try:
    from dispatchers.redis import bounded_client
except MissingDependencyError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "pip install 'dispatchers[redis]'" in done.stdout


@pytest.mark.parametrize("option", ["idempotency", "dead_letters"])
def test_the_doctor_says_what_a_store_may_lose(private_redis: RedisServer, option: str) -> None:
    """C9: claims and letters are lost with a server that keeps nothing on disk."""
    client = redis.Redis(port=private_redis.port)
    set_all(client, appendonly="no", save="")
    client.close()
    options: Any = {option: private_redis.url}

    with override(default=InlineDispatcher(**options)):
        found = findings(contact=True)

    (warning,) = [each for each in found if each.severity == "warning" and option in each.message]
    assert "nothing on disk" in warning.message
