"""Connections of redis-py that keep to the time that is left, and repeat nothing."""

from __future__ import annotations

from functools import partial
from threading import Lock, RLock, get_ident
from typing import Any

from redis import BlockingConnectionPool, ConnectionPool, Redis, __version__
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatchers._errors import ConfigurationError
from dispatchers._runtime.connect import ConnectTimeoutError, bounded
from dispatchers._runtime.fork import renew_after_fork

from ._address import refuse_misread
from ._deadline import MARK, time_left

NO_PROCESS = -1
"""A process id that no pool has: redis-py drops connections that are not of its process."""
OF_ITS_POOL = ("maint_notifications", "oss_cluster", "orig_", "himport_registry", "retry")
"""The beginnings of settings that belong to another pool, or that would repeat a command."""


OVERRIDDEN = ("connect_check_health", "disconnect", "read_response", "send_packed_command")
"""Methods of a connection that bound it; canaries: tests/adapters/redis/test_private_parts.py."""


def bounded_connection(base: Any) -> Any:
    """Return a connection class of redis-py that keeps to `within`.

    Args:
        base: `redis.Connection`, or a class derived from it.

    Raises:
        ConfigurationError: This redis-py connects otherwise, so that nothing would be bounded.
    """
    # A method that is gone would not be overridden, and nothing would be bounded, silently.
    if missing := [name for name in OVERRIDDEN if not hasattr(base, name)]:
        raise ConfigurationError(
            f"connections of redis-py {__version__} have no {', '.join(missing)}, by which calls "
            "are kept within their deadline: pip install 'redis>=6,<9'"
        )
    return type(f"Bounded{base.__name__}", (_Bounded, base), {})


AnyConnection: Any = object
"""The base that `_Bounded` is mixed into."""


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
            bounded(connect, timeout=time_left(), discard=self._late, to=self._server())
        except Exception as exc:
            # Raised while connecting: certainly nothing was sent, whatever its type says.
            setattr(exc, MARK, True)
            if isinstance(exc, ConnectTimeoutError):
                self.pid = NO_PROCESS  # no pool lends it again: a thread still uses it
            raise

    def _server(self) -> str:
        return str(getattr(self, "path", None) or f"{self.host}:{self.port}")

    def _connect_here(self, connect: Any, args: Any, kwargs: Any) -> None:
        """Connect on the calling thread, which may be late."""
        self._connected_by = get_ident()
        try:
            connect(*args, **kwargs)
        finally:
            self._connected_by = None

    def _late(self, _: object) -> None:
        """Close a connection that came too late: its caller has gone."""
        self.disconnect()

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close the socket, unless another thread is connecting it."""
        # redis-py disconnects on errors, and would close the socket under the connecting thread.
        if self._connected_by in (None, get_ident()):
            super().disconnect(*args, **kwargs)

    def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
        if self._sock is not None:
            self._sock.settimeout(time_left())
        return super().send_packed_command(*args, **kwargs)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read a reply in the time that is left."""
        # While it connects, redis-py's own connect timeout holds for the greeting.
        if self._sock is not None and self._connected_by is None:
            self._sock.settimeout(time_left())
        return super().read_response(*args, **kwargs)


class _Pool(ConnectionPool):
    """A pool that renews its locks in a forked child; redis-py 8 resets under the parent's.

    When it is closed, a connection that is in use is closed at the end of its call: the socket of
    one that waits for its answer would be gone under it, and what it has sent in doubt.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_closed = False
        renew_after_fork(self)

    def disconnect(self, inuse_connections: bool = False) -> None:
        self._is_closed = True
        super().disconnect(inuse_connections)

    def release(self, connection: Any) -> None:
        if self._is_closed:
            connection.disconnect()
        super().release(connection)

    def _after_fork(self) -> None:
        # The attributes of redis-py's own pool: tests/adapters/redis/test_private_parts.py.
        self._lock, self._fork_lock = RLock(), Lock()


def bounded_client(place: str | Redis, **settings: Any) -> Redis:
    """Return a client whose connections keep to `within` and are never retried.

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
        refuse_misread(place)
        try:
            return ConnectionPool.from_url(place)
        except (ValueError, TypeError) as exc:  # of a parameter's value
            raise ConfigurationError(
                f"no address of a Redis: {type(exc).__name__} for one of its parameters"
            ) from None
    pool: Any = getattr(place, "connection_pool", None)
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        raise ConfigurationError(
            f"{type(place).__name__} does not lead to one Redis at one address: give a "
            "redis.Redis, or the address itself"
        )
    return pool


def _without_notices() -> dict[str, Any]:
    """Return settings for no maintenance notices, which redis-py 7 and later ask for."""
    try:
        from redis.maint_notifications import MaintNotificationsConfig
    except ImportError:
        return {}
    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
