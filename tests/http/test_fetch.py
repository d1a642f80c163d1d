"""Fetching keys is bounded, whatever the server does."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dispatchers.http import PATH, Endpoint
from dispatchers.http._fetch import FetchError, fetched

WITHIN = 30.0
"""Seconds: long enough for a loaded machine, far below what the server would take."""


@contextmanager
def raw_server(talk) -> Iterator[str]:
    """A server that does what `talk(connection, over)` does."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        talk(connection, over)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def silent(connection, over):
    over.wait(WITHIN * 2)


def endless_header(connection, over):
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not over.wait(0.02):
        connection.sendall(b"x")


def endless_body(connection, over):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not over.is_set():
        connection.sendall(b"x" * 65536)


@pytest.mark.parametrize("talk", [silent, endless_header, endless_body])
def test_a_fetch_ends(talk):
    """In its time or at its size; and its thread ends, too."""
    before = time.monotonic()
    with raw_server(talk) as url:
        with pytest.raises(FetchError):
            fetched(url, 0.3)
        assert time.monotonic() - before < WITHIN
        wait_until(lambda: not fetching())


def test_many_hanging_fetches_do_not_add_up():
    """Each wakes its thread when it gives up: the next one may begin."""
    with raw_server(silent) as url:
        for _ in range(8):
            with pytest.raises(FetchError, match="no document"):
                fetched(url, 0.05)
            wait_until(lambda: not fetching())


def fetching() -> bool:
    return any(thread.name == "dispatchers-keys" for thread in threading.enumerate())


def wait_until(condition) -> None:
    until = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_refused_connection_is_told():
    """At once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(FetchError):
        fetched(f"http://127.0.0.1:{port}/keys", 5.0)


def test_many_requests_with_a_cold_cache_cause_one_fetch(scene):
    """The others wait for it."""
    endpoint = Endpoint(scene.settings(oidc=scene.oidc(refresh_floor=300.0)))
    headers = scene.headers(scene.issuer.token())

    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: endpoint.handle("POST", PATH, headers, scene.body).status, range(48))
        )

    assert set(answers) == {204}
    assert scene.issuer.fetches == 1


def test_a_failed_fetch_is_not_repeated_at_once(scene):
    """While the key server is down, requests are answered without asking it each time."""
    scene.issuer.mood = "error"
    endpoint = Endpoint(scene.settings(oidc=scene.oidc(refresh_floor=300.0)))
    headers = scene.headers(scene.issuer.token())

    answers = [endpoint.handle("POST", PATH, headers, scene.body) for _ in range(10)]

    assert {answer.status for answer in answers} == {503}
    assert ("Retry-After", "300") in answers[0].headers
    assert scene.issuer.fetches == 1


def test_a_slow_key_server_does_not_block_the_loop(scene):
    """Requests with a secret are answered while a token waits for its key."""
    scene.issuer.mood = "slow"
    endpoint = Endpoint(scene.settings(oidc=scene.oidc(fetch_timeout=2.0)))
    token, secret = scene.headers(scene.issuer.token()), scene.headers()

    async def both() -> list[int]:
        done: list[int] = []

        async def push(headers) -> None:
            answer = await endpoint.ahandle("POST", PATH, headers, scene.body)
            done.append(answer.status)

        slow = asyncio.create_task(push(token))
        while not scene.issuer.fetches:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.005)
        await push(secret)
        await slow
        return done

    assert asyncio.run(both()) == [204, 503]
