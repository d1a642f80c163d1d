"""kombu's Redis transport, its connections bounded by what is left of a deadline."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any

from kombu.connection import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatchers.net import bounded

__all__ = ["Budget", "bounded_transport", "is_before_sending"]

MARK = "dispatchers_before_sending"


class Budget:
    """Until when the current call may take, on one connection's behalf."""

    def __init__(self) -> None:
        self.until = 0.0

    def left(self) -> float:
        """Seconds, and never none: a socket without a timeout would wait for ever."""
        return max(self.until - monotonic(), 0.001)


def is_before_sending(exc: BaseException | None) -> bool:
    """Whether an exception, or one that it was raised from, came while connecting."""
    while exc is not None:
        if getattr(exc, MARK, False):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _bounded_class(base: Any, budget: Budget) -> Any:
    """A connection class of redis-py that keeps to the budget."""

    class BoundedConnection(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.retry = Retry(NoBackoff(), 0)  # what may have been done is not repeated

        def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
            """Connect, name resolution and greeting included, within the budget."""
            if self._sock is not None:
                return
            connect: Any = super().connect_check_health
            try:
                bounded(partial(connect, *args, **kwargs), timeout=budget.left())
            except Exception as exc:
                setattr(exc, MARK, True)
                raise

        def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
            if self._sock is not None:
                self._sock.settimeout(budget.left())
            return super().send_packed_command(*args, **kwargs)

    return BoundedConnection


def bounded_transport(connection: Connection) -> tuple[Any, Budget]:
    """The connection's transport class with bounded sockets, and their budget."""
    budget = Budget()
    base: Any = connection.get_transport_cls()

    class Channel(base.Channel):
        connection_class = _bounded_class(base.Channel.connection_class, budget)
        connection_class_ssl = _bounded_class(base.Channel.connection_class_ssl, budget)

    class Transport(base):
        pass

    Transport.Channel = Channel
    return Transport, budget
