"""Scripts over connections that keep to the time that is left, their replies told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError

from dispatchers import ErrorCategory, RejectedError
from dispatchers.redis import bounded_client, within

from ._scripts import Script

__all__ = ["Link", "Reply"]

Reply = Any
"""What a script gave, or the exception that says why it gave nothing."""
AT_ONCE = 100
"""Scripts that are sent before their replies are read: the replies wait in the server's memory."""


class Link:
    """A Redis that runs our scripts.

    Args:
        place: Its address, or a client whose settings are taken.
    """

    def __init__(self, place: str | Redis) -> None:
        self.client: Any = bounded_client(place, decode_responses=False)

    def run(self, script: Script, args: Sequence[Any], *, timeout: float) -> Any:
        """Run a script.

        Raises:
            redis.RedisError: It could not be run, or nobody knows.
        """
        return _value(self.run_many(script, [args], timeout=timeout)[0])

    def run_many(
        self, script: Script, items: Sequence[Sequence[Any]], *, timeout: float
    ) -> list[Reply]:
        """Run a script for each item, in as few round trips as is sensible.

        What comes before the first connection is raised, and was not run.
        """
        with within(timeout):
            connection = self.client.connection_pool.get_connection()
            try:
                return _all(connection, script, items)
            finally:
                self.client.connection_pool.release(connection)

    def close(self) -> None:
        """Close what is open; it opens again if needed."""
        self.client.connection_pool.disconnect()


def _all(connection: Any, script: Script, items: Sequence[Sequence[Any]]) -> list[Reply]:
    replies: list[Reply] = []
    for start in range(0, len(items), AT_ONCE):
        part = items[start : start + AT_ONCE]
        if replies and not connection.is_connected:
            error = RejectedError(
                ErrorCategory.UNAVAILABLE, "the connection failed before its turn"
            )
            replies += [error] * len(part)
        else:
            replies += _known(connection, script, part)
    return replies


def _known(connection: Any, script: Script, items: Sequence[Sequence[Any]]) -> list[Reply]:
    """A server that does not know the script is told it, once."""
    replies = _exchange(connection, [("EVALSHA", script.sha, 0, *args) for args in items])
    missing = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if missing:
        again = _exchange(connection, [("EVAL", script.text, 0, *items[n]) for n in missing])
        for place, reply in zip(missing, again, strict=True):
            replies[place] = reply
    return replies


def _exchange(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Reply]:
    """Send commands and read their replies; those that do not come are not known, all others are.

    Whatever ends it half-way leaves replies behind, so that nobody may use the connection again.
    """
    replies: list[Reply] = []
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        replies.extend(_reply(connection) for _ in commands)
    except Exception as exc:  # noqa: BLE001 - each is judged by who asked
        connection.disconnect()
        replies += [exc] * (len(commands) - len(replies))
    except BaseException:
        connection.disconnect()
        raise
    return replies


def _reply(connection: Any) -> Reply:
    try:
        return connection.read_response()
    except ResponseError as exc:
        return exc


def _value(reply: Reply) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply
