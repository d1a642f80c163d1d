"""A client of redis-py keeps to the time it is given, and repeats nothing."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis as client_library
from redis.sentinel import Sentinel

from dispatchers import ConfigurationError, ErrorCategory
from dispatchers.redis import (
    bounded_client,
    category_of,
    is_certainly_unsent,
    time_left,
    within,
)
from dispatchers.testing import FaultProxy
from dispatchers.testing.conformance._tools import answered, eventually
from dispatchers.testing.servers import RedisServer, free_port

from ...timing import within as ends_within  # noqa: TID252 - as for the other cases

PATIENCE = 20.0
"""Seconds for what a busy machine may take long for."""


@pytest.fixture
def key() -> str:
    return f"bounds-{uuid4().hex}"


@pytest.fixture
def proxy(shared_redis: str, key: str) -> Iterator[FaultProxy]:
    place = urlsplit(shared_redis)
    with FaultProxy(place.hostname, place.port) as opened:
        yield opened
    # Now: what it held back may arrive when it is closed.
    with client_library.Redis.from_url(shared_redis) as client:
        client.delete(key)


@pytest.fixture
def direct(shared_redis: str, key: str) -> Iterator[Any]:
    client = client_library.Redis.from_url(shared_redis)
    yield client
    client.delete(key)
    client.close()


def through(proxy: FaultProxy) -> Any:
    return bounded_client(f"redis://localhost:{proxy.port}/0")


def failure(client: Any, key: str, seconds: float = 0.5) -> Exception:
    """Return the exception of a push, which comes in time."""
    errors = (OSError, client_library.RedisError)
    with ends_within(seconds), pytest.raises(errors) as caught, within(seconds):
        client.rpush(key, "x")
    return caught.value


@pytest.mark.parametrize("fault", ["refuse", "black_hole"])
def test_connecting_is_bounded_and_certainly_nothing_was_sent(
    proxy: FaultProxy, key: str, fault: str
) -> None:
    """C2, C3: no connection in time, and the work may be given to another."""
    client = through(proxy)
    getattr(proxy, fault)()

    found = [failure(client, key) for _ in range(3)]

    assert all(map(is_certainly_unsent, found))
    assert {category_of(exc) for exc in found} <= {
        ErrorCategory.TIMEOUT,
        ErrorCategory.UNAVAILABLE,
    }


def test_a_server_that_falls_silent_is_waited_for_that_long(proxy: FaultProxy, key: str) -> None:
    """C2: also on a connection that stands already; whether it was done is not known."""
    client = through(proxy)
    with within(PATIENCE):
        client.ping()
    proxy.black_hole()

    exc = failure(client, key)

    assert category_of(exc) is ErrorCategory.TIMEOUT
    assert not is_certainly_unsent(exc)


def test_a_lost_reply_is_not_repeated(proxy: FaultProxy, direct: Any, key: str) -> None:
    """C3: redis-py would send it again, and it would be there twice."""
    client = through(proxy)
    with within(PATIENCE):
        client.ping()
    proxy.drop_reply()

    exc = failure(client, key)

    assert not is_certainly_unsent(exc)
    assert direct.llen(key) == 1


def test_a_connection_that_was_closed_meanwhile_costs_nothing(
    proxy: FaultProxy, direct: Any, key: str
) -> None:
    """redis-py looks at its sockets before it sends."""
    client = through(proxy)
    with within(PATIENCE):
        client.ping()
    proxy.refuse()
    time.sleep(0.1)
    proxy.heal()

    with within(PATIENCE):
        client.rpush(key, "x")

    assert direct.llen(key) == 1


def test_a_connection_that_comes_too_late_is_lent_to_nobody(proxy: FaultProxy, key: str) -> None:
    """A thread that still connects it would close the next caller's socket."""
    client = through(proxy)
    proxy.delay(0.3)
    exc = failure(client, key, 0.1)
    proxy.heal()

    with within(PATIENCE):
        answers = [client.ping() for _ in range(100)]
    until = time.monotonic() + 5
    while proxy.open_connections > 1 and time.monotonic() < until:
        time.sleep(0.02)

    assert isinstance(exc, TimeoutError | client_library.TimeoutError)
    assert answers == [True] * 100
    assert proxy.open_connections == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_waits_for_no_lock_of_its_parents_pool(shared_redis: str) -> None:
    """C8: a thread of the parent may hold it while another forks."""
    client: Any = bounded_client(shared_redis)
    client.ping()

    with client.connection_pool._lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)
            os._exit(0 if client.ping() else 1)

    assert os.waitpid(pid, 0)[1] == 0
    assert client.ping()


def test_all_commands_of_a_block_share_its_time(shared_redis: str, key: str) -> None:
    """C2: the deadline is one for everything that a dispatch needs."""
    client = bounded_client(shared_redis)

    with ends_within(0.6), pytest.raises(client_library.TimeoutError):
        _wait_in_steps(client, key)


def _wait_in_steps(client: Any, key: str) -> None:
    with within(0.6):
        for _ in range(10):
            client.blpop([key], timeout=0.25)


def test_blocks_are_nested() -> None:
    """The inner one's time ends with it."""
    with within(100):
        with within(1):
            inner = time_left()
        outer = time_left()

    assert inner <= 1
    assert 90 < outer <= 100


def test_outside_of_a_block_there_is_a_bound_too() -> None:
    """A socket without one waits for ever."""
    assert time_left() == 5.0


def test_a_client_is_taken_with_its_settings(private_redis: RedisServer) -> None:
    """A user's own client says where the server is and how to talk; its retries are left out."""
    theirs = client_library.Redis(
        host="localhost", port=private_redis.port, db=3, decode_responses=True
    )

    ours: Any = bounded_client(theirs)
    with within(PATIENCE):
        ours.set("a", "b")

    assert theirs.get("a") == "b"
    assert ours.get("a") == "b"
    assert ours.connection_pool is not theirs.connection_pool


def test_what_has_no_address_is_refused(shared_redis: str) -> None:
    """Sentinel finds its server at connecting, by clients without a bound."""
    sentinel = Sentinel([("127.0.0.1", free_port())])

    with pytest.raises(ConfigurationError, match="one address"):
        bounded_client(sentinel.master_for("shop"))
    with pytest.raises(ConfigurationError, match="no address of a Redis"):
        bounded_client("http://localhost")


def test_a_refusal_of_the_server_was_certainly_not_done(private_redis: RedisServer) -> None:
    """C3: a full server answers at once, and with an error."""
    client: Any = bounded_client(private_redis.url)
    client.config_set("maxmemory", "1")

    exc = failure(client, "a")

    assert category_of(exc) is ErrorCategory.CAPACITY
    assert is_certainly_unsent(exc)


def test_a_wrong_password_is_one() -> None:
    """C4: told apart from a server that is down."""
    with RedisServer() as server:
        plain: Any = client_library.Redis.from_url(server.url)
        plain.config_set("requirepass", "s3cret")
        place = urlsplit(server.url)
        client = bounded_client(f"redis://:wrong@{place.hostname}:{place.port}/0")

        exc = failure(client, "a")

        client_library.Redis.from_url(server.url, password="s3cret").config_set("requirepass", "")
    assert category_of(exc) is ErrorCategory.AUTHENTICATION
    assert is_certainly_unsent(exc)


def _trickle(server: socket.socket) -> None:
    """Greet, then answer every now and then, whatever is asked."""
    connection, _ = server.accept()
    with connection, suppress(OSError):
        while True:
            time.sleep(0.2)
            connection.sendall(b"+OK\r\n")


def test_many_slow_replies_are_bounded_together() -> None:
    """C2: a server that answers each of many commands just in time is late with all of them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_trickle, args=(server,), daemon=True).start()
        port = server.getsockname()[1]
        client: Any = bounded_client(f"redis://127.0.0.1:{port}/0", protocol=2)
        with within(30):
            client.ping()
        pipe = client.pipeline(transaction=False)
        for _ in range(20):
            pipe.set("x", "y")

        def execute() -> None:
            with within(0.7):
                pipe.execute()

        with pytest.raises(client_library.TimeoutError):
            answered(0.7, execute)
        client.close()


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:6379",
        "REDIS://localhost",
        "amqp://localhost",
        "redis+sentinel://host/0",
        "redis://a:1,b:2/0",
        "redis://host:/0",
        "redis://host/shop",
        "redis://host/0/1",
        "redis://host/0?dbb=3",
        "redis://host/0?max_connections=many",
        "redis://host/0#shop",
        "redis://:supersecret/x@host/0",
        "redis://:supersecret#x@host/0",
        "redis://:supersecret?x@host/0",
        "redis://:super:secret:9x@host:supersecret/0",
    ],
)
def test_an_address_that_would_be_misread_is_refused(url: str) -> None:
    """C12: an address is used as it is or refused, and no part of it is shown."""
    with pytest.raises(ConfigurationError, match="no address of a Redis: ") as caught:
        bounded_client(url)

    assert "supersecret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {}),
        ("redis://host", {"host": "host"}),
        ("redis://host:1/2", {"host": "host", "port": 1, "db": 2}),
        ("redis://u:p%2Fw@[::1]:1/2?client_name=me", {"password": "p/w", "client_name": "me"}),
        ("unix:///run/redis.sock?db=3", {"path": "/run/redis.sock", "db": 3}),
        ("rediss://host?ssl_cert_reqs=none", {"ssl_cert_reqs": "none"}),
    ],
)
def test_an_address_is_used_as_it_is(url: str, expected: dict[str, object]) -> None:
    """Each part that redis-py understands reaches the connection."""
    settings = bounded_client(url).connection_pool.connection_kwargs

    assert {key: settings.get(key) for key in expected} == expected


def test_a_client_that_is_closed_ends_its_calls_first(proxy: FaultProxy, key: str) -> None:
    """C8: what is under way has its answer, and its connection is closed then."""
    client = through(proxy)
    pool = client.connection_pool
    client.ping()
    proxy.stall()

    def push() -> int:
        with within(10.0):
            return int(client.rpush(key, "x"))

    with ThreadPoolExecutor(1) as threads:
        pushed = threads.submit(push)
        eventually(lambda: bool(pool._in_use_connections))
        pool.disconnect()
        proxy.heal()
        number = pushed.result()

    assert number == 1
    eventually(lambda: proxy.open_connections == 0)
