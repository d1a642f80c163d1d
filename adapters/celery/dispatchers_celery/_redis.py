"""kombu's Redis transport, its connections bounded by what is left of a deadline."""

from __future__ import annotations

from typing import Any

from kombu.connection import Connection

from dispatchers.redis import bounded_connection

__all__ = ["bounded_transport"]


def bounded_transport(connection: Connection, opened: list[Any]) -> Any:
    """The connection's transport class, with sockets that keep to `within`.

    Args:
        connection: Kombu's.

        opened: Gets each connection of redis-py that is made: kombu does not close them all.
    """
    base: Any = connection.get_transport_cls()

    class Channel(base.Channel):
        connection_class = _noted(base.Channel.connection_class, opened)
        connection_class_ssl = _noted(base.Channel.connection_class_ssl, opened)

    class Transport(base):
        pass

    Transport.Channel = Channel
    return Transport


def _noted(base: Any, opened: list[Any]) -> Any:
    class Noted(bounded_connection(base)):  # type: ignore[misc] # a class made at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            opened.append(self)

    return Noted
