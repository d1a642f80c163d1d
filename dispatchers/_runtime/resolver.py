"""Name resolution within a bound (C2): a name server that never answers costs the deadline.

`getaddrinfo` knows no timeout, so it runs under a guard of its own.
"""

from __future__ import annotations

import socket
import threading
from time import monotonic
from typing import TypeAlias

from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.guard import Guard, GuardFullError, GuardTimeoutError

__all__ = ["Address", "ConnectTimeoutError", "ResolveTimeoutError", "Resolver"]

Address: TypeAlias = tuple[
    socket.AddressFamily,
    socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
]
"""One entry of `socket.getaddrinfo`: family, type, protocol, canonical name, socket address."""


Key: TypeAlias = tuple[str, int]


KEPT_SECONDS = 3.0
"""Shorter than the time to live of 5 s that managed services give the names they fail over with,
long enough for a pool that opens many connections at once."""


KEPT_NAMES = 256
"""More names than a process connects to; the oldest is forgotten for a new one."""


HIGHEST_PORT = 65535


class ConnectTimeoutError(TimeoutError):
    """There was no connection in time; certainly nothing was handed over."""


class ResolveTimeoutError(ConnectTimeoutError):
    """The name was not resolved in time; certainly nothing was handed over."""


class _Lookup:
    """One call of `getaddrinfo`, for all who ask for the same name meanwhile."""

    __slots__ = ("addresses", "begun", "dropped", "error", "finished", "key", "waiting")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.begun = self.finished = self.dropped = False
        self.addresses: list[Address] = []
        self.error: BaseException | None = None
        self.waiting: list[threading.Lock] = []

    def run(self) -> None:
        """Ask the system; may take for ever."""
        self.begun = True
        host, port = self.key
        try:
            self.addresses = [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except ValueError as exc:  # a label too long for IDNA, or a null character
            self.error = socket.gaierror(socket.EAI_NONAME, f"{host!r} cannot be a host's name")
            self.error.__cause__ = exc
        except BaseException as exc:  # noqa: BLE001 - the caller raises it
            self.error = exc

    def end(self, *, dropped: bool = False) -> None:
        """Wake all who wait."""
        self.dropped, self.finished = dropped, not dropped
        while self.waiting:
            self.waiting.pop().release()

    def wait(self, timeout: float) -> bool:
        """Tell whether it ended within `timeout` seconds."""
        latch = threading.Lock()
        latch.acquire()
        self.waiting.append(latch)
        ended = self.finished or self.dropped
        return ended or latch.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))

    def answer(self) -> list[Address]:
        """The addresses, or the error; several threads may raise it, so each raises a new one."""
        if isinstance(self.error, OSError):
            raise type(self.error)(*self.error.args) from self.error
        if self.error is not None:
            raise self.error
        return list(self.addresses)


class Resolver:
    """Resolves names on helper threads.

    Those who ask for the same name at the same time share one lookup, and a lookup that hangs is
    not repeated while it does: a caller that asks meanwhile waits for it, at most its own timeout.
    Serves many threads; a forked child keeps the answers and begins its own lookups.

    Args:
        keep: Seconds for which an answer serves again; 0 for not at all. Errors are not kept.

        cap: So many names whose lookups hang, and further ones are refused at once.
    """

    def __init__(self, *, keep: float = KEPT_SECONDS, cap: int = 8) -> None:
        self._keep = keep
        self._guard = Guard("dispatchers-resolve", cap=cap)
        self._under_way: dict[Key, _Lookup] = {}
        self._kept: dict[Key, tuple[float, list[Address]]] = {}
        renew_after_fork(self)

    def resolve(self, host: str, port: int, *, timeout: float) -> list[Address]:
        """The addresses of a host, in the system's order; a literal address needs no thread.

        Args:
            host: A name, or an IPv4 or IPv6 address.

            port: 1 to 65535.

            timeout: Seconds.

        Raises:
            ResolveTimeoutError: No answer in time, or too many names hang already.
            socket.gaierror: The system has no address for it.
            ValueError: The host is empty or the port out of range.
        """
        _check_address(host, port)
        if literal := _literal(host, port):
            return [literal]
        key = (host, port)
        if kept := self._recall(key):
            return kept
        until = monotonic() + timeout
        while not (lookup := self._look_up(key, until)).finished:
            if monotonic() >= until:
                raise ResolveTimeoutError(f"{host!r} was not resolved within {timeout:g} s")
        return lookup.answer()

    def close(self, timeout: float) -> int:
        """Refuse further lookups; how many were left after `timeout` seconds."""
        return self._guard.close(timeout)

    def _look_up(self, key: Key, until: float) -> _Lookup:
        """Begin a lookup or join the one under way, and wait for it."""
        lookup = self._under_way.get(key)
        if lookup is None:
            mine = _Lookup(key)
            lookup = self._under_way.setdefault(key, mine)
            if lookup is mine:
                self._lead(lookup, until)
                return lookup
        if not lookup.wait(until - monotonic()) and not lookup.begun:
            self._drop(lookup)  # the thread that was to begin it died on the way
        return lookup

    def _lead(self, lookup: _Lookup, until: float) -> None:
        try:
            self._guard.call(lambda: self._run(lookup), timeout=until - monotonic())
        except GuardTimeoutError as exc:
            if not exc.started:
                self._drop(lookup)
        except GuardFullError as exc:
            self._drop(lookup)
            raise ResolveTimeoutError(f"{lookup.key[0]!r} was not looked up: {exc}") from exc
        except BaseException:
            if not lookup.begun:
                self._drop(lookup)
            raise

    def _run(self, lookup: _Lookup) -> None:
        lookup.run()
        if lookup.error is None:
            self._remember(lookup)
        self._forget(lookup)
        lookup.end()

    def _drop(self, lookup: _Lookup) -> None:
        """It was never begun: those who wait begin their own."""
        self._forget(lookup)
        lookup.end(dropped=True)

    def _forget(self, lookup: _Lookup) -> None:
        if self._under_way.get(lookup.key) is lookup:
            self._under_way.pop(lookup.key, None)

    def _remember(self, lookup: _Lookup) -> None:
        for oldest in tuple(self._kept)[: 1 - KEPT_NAMES]:
            self._kept.pop(oldest, None)
        self._kept[lookup.key] = (monotonic() + self._keep, lookup.addresses)

    def _recall(self, key: Key) -> list[Address] | None:
        until, addresses = self._kept.get(key, (0.0, []))
        return list(addresses) if monotonic() < until else None

    def _after_fork(self) -> None:
        self._under_way = {}


def _check_address(host: object, port: object) -> None:
    if not isinstance(host, str) or not host:
        raise ValueError(f"host is {host!r}: pass a name or an address")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= HIGHEST_PORT:
        raise ValueError(f"port of {host!r} is {port!r}: pass a whole number from 1 to 65535")


def _literal(host: str, port: int) -> Address | None:
    """The entry for a host that is an address already."""
    is_v6 = ":" in host
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    number, _, zone = host.partition("%") if is_v6 else (host, "", "")
    try:
        socket.inet_pton(family, number)
    except (OSError, ValueError):
        return None
    scope = (int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else 0
    place = (number, port, 0, scope) if is_v6 else (number, port)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place
