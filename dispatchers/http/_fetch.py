"""Fetching of a small document over HTTP, within a time and a size."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from http.client import HTTPConnection

__all__ = ["LARGEST", "FetchError", "fetched"]

LARGEST = 256 * 1024
"""Bytes; Google's keys take 2 000."""
OK = 200
MOST_ABANDONED = 4
"""Fetches that were given up and have not ended: a TLS handshake that never does, say."""

_abandoned = threading.BoundedSemaphore(MOST_ABANDONED)


class FetchError(Exception):
    """The document could not be had."""


class _Fetch(threading.Thread):
    """One fetch on a thread of its own: its steps have no common time limit."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(name="dispatchers-keys", daemon=True)
        self.body: bytes | None = None
        self._parts = urlsplit(url)
        self.connection = _connection(self._parts, timeout)

    def run(self) -> None:
        try:
            self.body = self._received()
        except Exception:  # noqa: BLE001, S110 - a missing body says it
            pass
        finally:
            self.connection.close()
            _abandoned.release()

    def _received(self) -> bytes | None:
        path = self._parts.path or "/"
        query = f"?{self._parts.query}" if self._parts.query else ""
        self.connection.request("GET", path + query, headers={"Accept": "application/json"})
        response = self.connection.getresponse()
        # One byte more than allowed tells a larger document without reading it.
        body = response.read(LARGEST + 1)
        return body if response.status == OK and len(body) <= LARGEST else None

    def give_up(self) -> None:
        """Wake the thread from what it waits for."""
        with contextlib.suppress(OSError):
            if (found := self.connection.sock) is not None:
                # `close` would not wake a thread that is reading; `shutdown` does.
                found.shutdown(socket.SHUT_RDWR)


def _connection(parts: SplitResult, timeout: float) -> HTTPConnection:
    from http.client import HTTPConnection, HTTPSConnection

    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout)


def fetched(url: str, timeout: float) -> bytes:
    """Fetch the document behind a URL; without redirects and proxies.

    Args:
        url: `http` or `https`.

        timeout: Seconds in all.

    Raises:
        FetchError: It did not come in time, was too large, or the status was not 200.
    """
    # Threads that hang in DNS or TLS cannot be ended, so their number is limited.
    if not _abandoned.acquire(blocking=False):
        raise FetchError("too many fetches that were given up have not ended")
    try:
        fetch = _Fetch(url, timeout)
        fetch.start()
    except BaseException:
        _abandoned.release()
        raise
    fetch.join(timeout)
    if fetch.is_alive():
        fetch.give_up()
        raise FetchError("no document in time")
    if fetch.body is None:
        raise FetchError("no document, or too large a one")
    return fetch.body
