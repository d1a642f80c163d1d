"""One gRPC channel, watched: whether a call can have been sent is known before it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import google.auth
import grpc
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

from dispatchers import ErrorCategory, RejectedError
from dispatchers.net import bounded

from ._gate import calling, keep_from_forks
from ._options import CloudTasksOptions

__all__ = ["Link", "OwnClient", "open_link"]

HOST = "cloudtasks.googleapis.com"
READY = grpc.ChannelConnectivity.READY
CONNECTING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
PATIENCE = 2.0
"""Seconds after which a connection that is still being made is begun anew by the next caller."""
CHANNEL = (
    ("grpc.enable_retries", 0),  # nothing is repeated behind the caller's back
    ("grpc.use_local_subchannel_pool", 1),  # a new channel begins without an old one's back-off
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)


class Link:
    """A channel and the official client on it.

    Args:
        channel: Owned.

        place: What it leads to, for messages.

        token: What a stand-in wants of its callers.
    """

    def __init__(self, channel: grpc.Channel, place: str, token: str | None = None) -> None:
        self.client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.usable = True
        self._place = place
        self._channel = channel
        self._changed = threading.Condition()  # re-entrant: a signal handler may come here too
        self._ready = False
        self._users = 0
        self._closed = False
        self._since = monotonic()
        self._state: Any = _state_of(channel)
        keep_from_forks(channel)
        channel.subscribe(self._on_state, try_to_connect=True)

    def _on_state(self, state: grpc.ChannelConnectivity) -> None:
        """While it connects; once it has, nobody watches, which would cost every call a quarter."""
        if state in CONNECTING:
            return
        self._channel.unsubscribe(self._on_state)
        with self._changed:
            self._ready = state is READY
            self.usable = self._ready and self.usable
            self._changed.notify_all()
        self._close_if_unused()

    def is_alive(self) -> bool:
        """Whether it may be used: a connection that ended between two calls makes way for another.

        As far as can be known: gRPC notices in its own time.
        """
        if self.usable and self._ready and self._state(False) != READY.value[0]:
            self.retire()
        return self.usable

    @contextmanager
    def ready(self, timeout: float) -> Generator[None]:
        """A connection for the time of a call; until it is there nothing was handed over.

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
            raise RejectedError(ErrorCategory.UNAVAILABLE, f"no connection to {self._place}")
        if monotonic() - self._since > PATIENCE:
            self.usable = False
        raise RejectedError(
            ErrorCategory.TIMEOUT, f"no connection to {self._place} within {timeout:.3g} s"
        )

    def retire(self) -> None:
        """Use it no more; calls that are under way end first."""
        self.usable = False
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        """Closing waits for gRPC's own watching thread, up to 0.2 s: grpcio 1.85."""
        if self.usable or self._users:
            return
        with self._changed:
            closed, self._closed = self._closed, True
        if not closed:
            threading.Thread(target=self._close, daemon=True).start()

    def _close(self) -> None:
        with calling():
            self._channel.close()


def _state_of(channel: Any) -> Callable[[bool], int]:
    """What tells a channel's state. `grpc.aio` has it in public, `grpc` only inside: grpcio 1.85.

    Where it is no more, a channel counts as connected until a call fails:
    `test_a_service_that_restarted_is_found_again` will tell.
    """
    inner = getattr(channel, "_channel", None)
    found: Callable[[bool], int] = getattr(
        inner, "check_connectivity_state", lambda _: READY.value[0]
    )
    return found


class OwnClient:
    """A client that the user brought, of whatever transport: nothing is known before a call."""

    metadata = ()

    def __init__(self, client: Any) -> None:
        self.client = client

    def is_alive(self) -> bool:
        """Nobody knows."""
        return True

    @contextmanager
    def ready(self, timeout: float) -> Generator[None]:
        """Nothing to wait for."""
        del timeout
        yield

    def retire(self) -> None:
        """It is the user's."""


def open_link(options: CloudTasksOptions, timeout: float) -> Link | OwnClient:
    """A link as the options want it. Finding Google's credentials is bounded by `timeout`."""
    if options.client is not None:
        return OwnClient(options.client)
    token = options.token.get_secret_value() if options.token else None
    if options.endpoint is not None:
        return Link(grpc.insecure_channel(options.endpoint, CHANNEL), options.endpoint, token)
    return Link(bounded(_google, timeout=timeout), HOST)


def _google() -> grpc.Channel:
    scopes = ("https://www.googleapis.com/auth/cloud-platform",)
    credentials, _ = google.auth.default(scopes=scopes)
    make: Callable[..., grpc.Channel] = CloudTasksGrpcTransport.create_channel
    return make(HOST, credentials=credentials, scopes=scopes, options=CHANNEL)
