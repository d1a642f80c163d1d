"""Faults of a broker: a private server behind a proxy, and the list of what can fail.

::

    with Scene("redis") as scene:
        dispatcher = RQDispatcher(url=scene.url)
        scene.begin("paused")
        response = dispatcher.dispatch(request)
        scene.end()

`FAULTS` says of each fault what an answer to a dispatch may be. Servers are addressed by name, so
that what name resolution costs is part of what is measured.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

from dispatchers import DispatchStatus, ErrorCategory

from ._proxy import FaultProxy
from .processes import wait_until
from .servers import PrivateServer, RabbitMQServer, RedisServer

__all__ = ["FAULTS", "Fault", "Scene", "silent_names"]

REJECTED, UNKNOWN = DispatchStatus.REJECTED, DispatchStatus.UNKNOWN
ACCEPTED = DispatchStatus.ACCEPTED
UNAVAILABLE, TIMEOUT = ErrorCategory.UNAVAILABLE, ErrorCategory.TIMEOUT
CAPACITY = ErrorCategory.CAPACITY
SILENT = "silent.invalid"
NOWHERE = "no-such-host.invalid"
"""Of a domain that has no names: RFC 6761."""


class Fault(NamedTuple):
    """One thing that goes wrong."""

    text: str
    """What it is, for people."""
    statuses: frozenset[DispatchStatus]
    """What a dispatch may be answered meanwhile."""
    categories: frozenset[ErrorCategory]
    """Why."""
    kinds: frozenset[str] = frozenset({"redis", "rabbitmq"})
    """The servers that it happens to."""


def _fault(text: str, statuses: set[DispatchStatus], *categories: ErrorCategory) -> Fault:
    return Fault(text, frozenset(statuses), frozenset(categories))


FAULTS: dict[str, Fault] = {
    "refused": _fault("nothing listens on the port", {REJECTED}, UNAVAILABLE),
    "down": _fault("the server was killed", {REJECTED, UNKNOWN}, UNAVAILABLE),
    "black hole": _fault(
        "connections are accepted, nothing is answered", {REJECTED, UNKNOWN}, TIMEOUT
    ),
    "never accepted": _fault("connections are not even accepted", {REJECTED, UNKNOWN}, TIMEOUT),
    "paused": _fault("the server is frozen (SIGSTOP)", {REJECTED, UNKNOWN}, TIMEOUT),
    "reset": _fault("every connection is reset", {REJECTED, UNKNOWN}, UNAVAILABLE),
    "reply lost": _fault(
        "the request arrives, its answer does not", {UNKNOWN, REJECTED}, UNAVAILABLE, TIMEOUT
    ),
    "restarted": _fault("the server was restarted between two calls", {ACCEPTED}),
    "full": _fault("the server has no memory left", {REJECTED}, CAPACITY)._replace(
        kinds=frozenset({"redis"})
    ),
    "read-only": _fault("the server is a replica", {REJECTED}, UNAVAILABLE)._replace(
        kinds=frozenset({"redis"})
    ),
    "alarm": _fault("a memory alarm blocks publishers", {REJECTED, UNKNOWN}, TIMEOUT)._replace(
        kinds=frozenset({"rabbitmq"})
    ),
    "no such name": _fault("the name does not resolve", {REJECTED}, UNAVAILABLE),
    "silent name server": _fault(
        "the name server does not answer", {REJECTED}, TIMEOUT, UNAVAILABLE
    ),
}
"""By name, in the order of the table in the documentation."""


class Scene:
    """A private server behind a proxy, to which faults happen.

    Args:
        kind: `redis` or `rabbitmq`; any word for a server of your own.

        silence: Seconds that a name server which does not answer costs a client that waits for it.
            Two tries of 5 are the usual.

        server: A server of your own, not started yet.
    """

    def __init__(
        self, kind: str, *, silence: float = 10.0, server: PrivateServer | None = None
    ) -> None:
        self.kind = kind
        self._silence = silence
        self.server = server or (RedisServer() if kind == "redis" else RabbitMQServer())
        self._proxy = FaultProxy(self.server.host, self.server.port)
        self._undo: Callable[[], object] = _nothing

    @property
    def url(self) -> str:
        """The way through the proxy, by name."""
        return self._at("localhost")

    def url_for(self, fault: str) -> str:
        """The address a client is given: for faults of names, a name of their own."""
        if fault == "no such name":
            return self._at(NOWHERE)
        return self._at(SILENT) if fault == "silent name server" else self.url

    def _at(self, host: str) -> str:
        parts = urlsplit(self.server.url)
        user = f"{parts.username}:{parts.password}@" if parts.username else ""
        return urlunsplit(parts._replace(netloc=f"{user}{host}:{self._proxy.port}"))

    def begin(self, fault: str) -> None:
        """Let it happen, until `end`."""
        getattr(self, f"_{fault.replace(' ', '_').replace('-', '_')}")()

    def end(self) -> None:
        """All is well again; returns when the server answers."""
        # Swapped first, so that an undo that fails is not tried again at the end of the scene.
        undo, self._undo = self._undo, _nothing
        undo()
        self._proxy.heal()
        wait_until(self.server.answers, f"{self.kind} does not answer")

    def __enter__(self) -> Self:
        self.server.__enter__()
        self._proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo()
        self._proxy.close()
        self.server.remove()

    # The faults.

    def _refused(self) -> None:
        self._proxy.refuse()

    def _down(self) -> None:
        self.server.kill()
        self._undo = self.server.start

    def _black_hole(self) -> None:
        self._proxy.black_hole()

    def _never_accepted(self) -> None:
        self._proxy.black_hole(accept=False)

    def _paused(self) -> None:
        self.server.pause()
        self._undo = self.server.resume

    def _reset(self) -> None:
        self._proxy.reset()

    def _reply_lost(self) -> None:
        self._proxy.drop_reply()

    def _restarted(self) -> None:
        self.server.kill()
        self.server.start()

    def _full(self) -> None:
        self._redis("config", "set", "maxmemory", "1")
        self._undo = lambda: self._redis("config", "set", "maxmemory", "0")

    def _read_only(self) -> None:
        self._redis("replicaof", self.server.host, "1")
        self._undo = lambda: self._redis("replicaof", "no", "one")

    def _alarm(self) -> None:
        server: Any = self.server
        # Before the alarm is raised: if raising it fails half-way, it is still taken back.
        self._undo = server.end_alarm
        server.alarm()

    def _no_such_name(self) -> None:
        """The address says it all."""

    def _silent_name_server(self) -> None:
        self._undo = silent_names(self._silence)

    def _redis(self, *words: str) -> None:
        with socket.create_connection((self.server.host, self.server.port), 5) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            # By hand: a Redis client need not be installed.
            answer = connection.recv(100)
        if not answer.startswith(b"+OK"):
            raise RuntimeError(f"redis said {answer!r}")


def silent_names(seconds: float) -> Callable[[], None]:
    """Let the name of `url_for("silent name server")` take so long in this process, and then fail.

    A name server that does not answer is played by the system's call, which is all that a client
    sees of it.

    Returns:
        What undoes it.
    """
    # In this process, because a real silent name server would need the machine's configuration.
    real = socket.getaddrinfo

    def slow(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in (SILENT, SILENT.encode()):
            time.sleep(seconds)
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")
        return real(host, *args, **kwargs)

    def undo() -> None:
        socket.getaddrinfo = real

    # On the module, where clients look it up when they call.
    socket.getaddrinfo = slow
    return undo


def _nothing() -> None:
    """There is nothing to undo."""
