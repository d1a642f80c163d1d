"""Connections of redis-py that keep to the time that is left, and repeat nothing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from threading import Lock, RLock, get_ident
from time import monotonic
from typing import Any

from redis import BlockingConnectionPool, ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatchers._errors import ConfigurationError
from dispatchers._fork import renew_after_fork
from dispatchers._net import ConnectTimeoutError, bounded

__all__ = ["bounded_client", "bounded_connection", "is_before_sending", "time_left", "within"]

MARK = "dispatchers_before_sending"
NOBODY = -1
"""A process id that no pool has: redis-py drops connections that are not of its process."""
SHORTEST = 0.001
"""Seconds; a socket without a timeout would wait for ever."""
DEFAULT = 5.0
"""Seconds for what is done outside of `within`; redis-py's own default."""
OF_ITS_POOL = ("maint_notifications", "oss_cluster", "orig_", "himport_registry", "retry")
"""How settings begin that belong to another pool, or that would repeat what may be done."""

_until: ContextVar[float | None] = ContextVar("dispatchers_redis_until", default=None)


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Everything that bounded connections do in the block takes so many seconds at most.

    Args:
        seconds: From now; for all commands of the block together.
    """
    token = _until.set(monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def time_left() -> float:
    """Seconds that are left of the `within` around this; never none at all."""
    until = _until.get()
    return DEFAULT if until is None else max(until - monotonic(), SHORTEST)


def is_before_sending(exc: BaseException | None) -> bool:
    """Whether an exception, or one that it was raised from, came while connecting."""
    while exc is not None:
        if getattr(exc, MARK, False):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def bounded_connection(base: Any) -> Any:
    """A connection class of redis-py, made to keep to `within`.

    Args:
        base: `redis.Connection`, or a class derived from it.
    """
    return type(f"Bounded{base.__name__}", (_Bounded, base), {})


AnyConnection: Any = object
"""What stands behind `_Bounded` in a class that it is mixed into."""


class _Bounded(AnyConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.retry = Retry(NoBackoff(), 0)  # what may have been done is not repeated
        self._connected_by: int | None = None

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Connect, name resolution and greeting included, in the time that is left."""
        if self._sock is not None:
            return
        self.socket_connect_timeout = self.socket_timeout = time_left()
        connect = partial(self._connect_here, super().connect_check_health, args, kwargs)
        try:
            bounded(connect, timeout=time_left(), discard=self._late)
        except Exception as exc:
            setattr(exc, MARK, True)
            if isinstance(exc, ConnectTimeoutError):
                self.pid = NOBODY  # no pool lends it again: somebody is still at it
            raise

    def _connect_here(self, connect: Any, args: Any, kwargs: Any) -> None:
        """On a thread of its own, which may be late."""
        self._connected_by = get_ident()
        try:
            connect(*args, **kwargs)
        finally:
            self._connected_by = None

    def _late(self, _: object) -> None:
        """Nobody waits for it any more, and nobody else would close it."""
        self.disconnect()

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close the socket; not under the hands of the thread that is connecting it."""
        if self._connected_by in (None, get_ident()):
            super().disconnect(*args, **kwargs)

    def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
        if self._sock is not None:
            self._sock.settimeout(time_left())
        return super().send_packed_command(*args, **kwargs)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read a reply in the time that is left; connecting has a bound of its own."""
        if self._sock is not None and self._connected_by is None:
            self._sock.settimeout(time_left())
        return super().read_response(*args, **kwargs)


class _Pool(ConnectionPool):
    """A pool whose locks are a child's own: redis-py 8 makes it anew under one of the parent's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock, self._fork_lock = RLock(), Lock()


def bounded_client(place: str | Redis, **settings: Any) -> Redis:
    """A client with connections of its own, which keep to `within` and are never retried.

    Args:
        place: A server's address, or a client whose settings are taken. Of that nothing is changed.

        settings: Of the connections, over those of the address or the client.

    Raises:
        ConfigurationError: The address is none, or the client finds its server in another way than
            by an address (Sentinel, a cluster).
    """
    pool = _pool_of(place)
    taken = {k: v for k, v in pool.connection_kwargs.items() if not k.startswith(OF_ITS_POOL)}
    kind = bounded_connection(pool.connection_class)
    return Redis(
        connection_pool=_Pool(connection_class=kind, **{**taken, **_without_notices(), **settings})
    )


def _pool_of(place: str | Redis) -> ConnectionPool:
    if isinstance(place, str):
        try:
            return ConnectionPool.from_url(place)
        except ValueError as exc:
            raise ConfigurationError(f"no address of a Redis: {exc}") from None
    pool: Any = getattr(place, "connection_pool", None)
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        raise ConfigurationError(
            f"{type(place).__name__} is no client of one Redis at one address: "
            "give its address, or a redis.Redis"
        )
    return pool


def _without_notices() -> dict[str, Any]:
    """A pool that asks for no notices of maintenance, which redis-py 7 and later do."""
    try:
        from redis.maint_notifications import MaintNotificationsConfig
    except ImportError:
        return {}
    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
