"""One watched gRPC channel: before a call it is known whether it can be sent.

gRPC lets a process fork only while no thread is inside it: a child that is forked during a call of
another thread inherits gRPC's locks, held by no thread, and hangs in its first call (grpcio 1.85).
So every use of a channel enters `gate`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import google.auth
import grpc
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

from dispatchers import ErrorCategory, RejectedError
from dispatchers.net import ForkGate, bounded

from ._errors import before_contact
from ._options import CloudTasksOptions

HOST = "cloudtasks.googleapis.com"
READY = grpc.ChannelConnectivity.READY
CONNECTING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
CONNECT_TIMEOUT = 2.0
"""Seconds after which a connection that is still being made is begun anew by the next caller."""
CHANNEL = (
    ("grpc.enable_retries", 0),  # nothing is repeated behind the caller's back
    ("grpc.use_local_subchannel_pool", 1),  # a new channel begins without an old one's back-off
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)

# A call takes milliseconds where the service answers; a fork waits for it, two seconds at most.
gate = ForkGate(2.0)


class Connection:
    """A channel and the official client on it.

    Args:
        channel: Owned.

        address: What it leads to, for messages.

        token: What a stand-in wants of its callers.
    """

    def __init__(self, channel: grpc.Channel, address: str, token: str | None = None) -> None:
        self.client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.usable = True
        self.has_answered = False
        """The service has answered a call: the connection may end while none is under way."""
        self._address = address
        self._changed = threading.Condition()  # re-entrant: a signal handler may come here too
        self._ready = False
        self._users = 0
        self._closed = False
        self._since = monotonic()
        self._state: Any = _state_of(channel)
        self._watch = _Watch(self)
        self.watch()

    def watch(self) -> None:
        """Have gRPC tell when connecting has ended, unless it has."""
        if not self._ready and self.usable:
            self.channel.subscribe(self.on_state, try_to_connect=True)

    def on_state(self, state: grpc.ChannelConnectivity) -> None:
        """Note the end of connecting; watching longer would cost every call a quarter."""
        if state in CONNECTING:
            return
        # Before the state is passed on: the callback must not run a second time.
        self.channel.unsubscribe(self.on_state)
        with self._changed:
            self._ready = state is READY
            self.usable = self._ready and self.usable
            self._changed.notify_all()
        self._close_if_unused()

    def is_alive(self) -> bool:
        """Return whether it may be used: one that ended between two calls makes way for another.

        As far as can be known: gRPC notices in its own time.
        """
        if self.usable and self._ready and self._state(False) != READY.value[0]:
            self.retire()
        return self.usable

    @contextmanager
    def ready(self, timeout: float) -> Generator[None]:
        """Wait for the connection, and keep it for a call; until then nothing was handed over.

        Raises:
            RejectedError: There is none within `timeout` seconds.
        """
        with self._changed:
            self._users += 1
        try:
            if not self._ready:
                self._await(timeout)
            yield
        finally:
            with self._changed:
                self._users -= 1
            self._close_if_unused()

    def _await(self, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or not self.usable, timeout)
        if self._ready:
            return
        if not self.usable:
            raise RejectedError(ErrorCategory.UNAVAILABLE, f"no connection to {self._address}")
        # gRPC backs off for up to two minutes: a new channel tries again at once.
        if monotonic() - self._since > CONNECT_TIMEOUT:
            self.usable = False
        raise RejectedError(
            ErrorCategory.TIMEOUT, f"no connection to {self._address} within {timeout:.3g} s"
        )

    def retire(self) -> None:
        """Use it no more; calls that are under way end first."""
        self.usable = False
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self.usable or self._users:
            return
        with self._changed:
            closed, self._closed = self._closed, True
        if not closed:
            # Waits for gRPC's own watching thread, which looks up every 0.2 s: grpcio 1.85.
            threading.Thread(target=self._close, daemon=True).start()

    def _close(self) -> None:
        self.channel.unsubscribe(self.on_state)
        _await_watching_end(self.channel)
        with gate.entered():
            self.channel.close()


class _Watch:
    """Keeps forks away while one of gRPC's threads has a lock that the child takes first.

    A lock that a thread of the parent's had is never released there. `Channel._postfork_child`
    takes that of the channel's state, and one of the core's that only the thread which watches the
    channel takes beside calls (grpcio 1.85): watching is over for as long as a fork takes. Where
    these parts are gone nothing is guarded: `test_private_parts_of_grpc_are_there` will tell.

    Args:
        connection: Whose channel it is.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._process = os.getpid()
        self._state: Any = getattr(connection.channel, "_connectivity_state", None)
        self._lock: Any = getattr(self._state, "lock", None)
        if self._lock is not None:
            gate.guard(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """End the watching, then hold the lock, within `timeout` seconds; tell whether it is so."""
        del blocking
        until = monotonic() + timeout
        self._connection.channel.unsubscribe(self._connection.on_state)
        # Not with the lock in hand: the thread needs it to end.
        while getattr(self._state, "polling", False) and monotonic() < until:
            sleep(0.01)
        held = bool(self._lock.acquire(timeout=max(0.0, until - monotonic())))
        if not held:
            self._connection.watch()
        return held

    def release(self) -> None:
        """Let the lock go; in the process that has forked, go on watching."""
        self._lock.release()
        if os.getpid() == self._process:
            self._connection.watch()


def _await_watching_end(channel: object) -> None:
    """Let gRPC's thread that watches the channel end by itself.

    A channel that is closed under it has it die with a traceback (grpcio 1.85). Where the flag is
    gone nothing is awaited: `test_private_parts_of_grpc_are_there` will tell.
    """
    state, until = getattr(channel, "_connectivity_state", None), monotonic() + CONNECT_TIMEOUT
    while getattr(state, "polling", False) and monotonic() < until:
        sleep(0.05)


def _state_of(channel: Any) -> Callable[[bool], int]:
    """Return what tells a channel's state: public in `grpc.aio`, private in `grpc` (grpcio 1.85).

    Where it is gone, a channel counts as connected until a call fails:
    `test_private_parts_of_grpc_are_there` will tell.
    """
    inner = getattr(channel, "_channel", None)
    found: Callable[[bool], int] = getattr(
        inner, "check_connectivity_state", lambda _: READY.value[0]
    )
    return found


class OwnClient:
    """A client that the user brought, of any transport: nothing is known before a call."""

    metadata = ()
    channel = None

    def __init__(self, client: Any) -> None:
        self.client = client

    @property
    def has_answered(self) -> bool:
        """Return false: its failures are its own to repeat."""
        return False

    @has_answered.setter
    def has_answered(self, answered: bool) -> None:
        del answered

    def is_alive(self) -> bool:
        """Return true: nothing tells otherwise."""
        return True

    @contextmanager
    def ready(self, timeout: float) -> Generator[None]:
        """Wait for nothing."""
        del timeout
        yield

    def retire(self) -> None:
        """Leave it alone, as the user owns it."""


def connect(options: CloudTasksOptions, timeout: float) -> Connection | OwnClient:
    """Begin a connection as the options want it; finding credentials is bounded by `timeout`.

    Raises:
        RejectedError: The client could not be made: nothing was sent.
    """
    try:
        return _connect(options, timeout)
    except Exception as exc:
        raise before_contact(exc) from exc


def _connect(options: CloudTasksOptions, timeout: float) -> Connection | OwnClient:
    if options.client is not None:
        return OwnClient(options.client)
    token = options.token.get_secret_value() if options.token else None
    if options.endpoint is not None:
        # Only stand-ins and emulators have an endpoint of their own; they speak no TLS.
        channel = grpc.insecure_channel(options.endpoint, CHANNEL)
        return Connection(channel, options.endpoint, token)
    return Connection(bounded(_google, timeout=timeout, to=HOST), HOST)


def _google() -> grpc.Channel:
    scopes = ("https://www.googleapis.com/auth/cloud-platform",)
    credentials, _ = google.auth.default(scopes=scopes)
    make: Callable[..., grpc.Channel] = CloudTasksGrpcTransport.create_channel
    return make(HOST, credentials=credentials, scopes=scopes, options=CHANNEL)
