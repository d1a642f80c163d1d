"""Lua scripts: many runs of one in a single round trip, their replies told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from ._deadline import within

CHUNK = 64 * 1024
"""Bytes of commands that are sent together."""
Reply = Any
"""The reply of a script, or the exception that came in its place."""


class Script:
    """A Lua script and the hash that Redis knows it by.

    Args:
        text: The script.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Redis names scripts by their SHA-1; without the flag, builds of Python for FIPS refuse it.
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(
        self, client: Any, args: Sequence[Any], *, timeout: float, keys: Sequence[Any] = ()
    ) -> Any:
        """Run it once, within `timeout` seconds.

        Raises:
            redis.RedisError: It could not be run, or it is not known whether it was.
        """
        with within(timeout):
            reply = self.run_many(client, [args], keys=keys)[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def run_many(
        self, client: Any, items: Sequence[Sequence[Any]], *, keys: Sequence[Any] = ()
    ) -> list[Reply]:
        """Run it for each item, in one round trip, within the `within` around this.

        What comes before the first connection is raised, and was not run. Keep batches short: the
        replies wait in the server's memory until they are read.

        Args:
            client: A bounded client.

            items: The arguments of each run.

            keys: The keys, the same for all.

        Returns:
            For each item the reply, or the exception in its place.
        """
        pool = client.connection_pool
        connection = pool.get_connection()
        try:
            return self._run_many(connection, [(len(keys), *keys, *args) for args in items])
        finally:
            pool.release(connection)

    def _run_many(self, connection: Any, items: Sequence[tuple[Any, ...]]) -> list[Reply]:
        """Run it by its hash, and once more with its text where the server lacks it."""
        replies = _exchange(connection, [("EVALSHA", self.sha, *args) for args in items])
        missing = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        # The server lacks it and has done nothing: sending it again duplicates nothing.
        if missing and not _has_failed(replies[-1]):
            again = _exchange(connection, [("EVAL", self.text, *items[n]) for n in missing])
            for place, reply in zip(missing, again, strict=True):
                replies[place] = reply
        return replies


def _has_failed(reply: Reply) -> bool:
    """Return True after an exception of the connection, not of the server."""
    return isinstance(reply, Exception) and not isinstance(reply, ResponseError)


def _exchange(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Reply]:
    """Send commands and read their replies; a failure stands for each that did not come.

    An end half-way leaves replies behind, so that the connection may not be used again.
    """
    replies: list[Reply] = []
    try:
        connection.send_packed_command(_packed(commands, connection.encoder))
        replies.extend(_reply(connection.read_response) for _ in commands)
    except Exception as exc:  # noqa: BLE001 - the caller classifies each
        connection.disconnect()
        # What was answered before stays answered; only the rest is uncertain.
        replies += [exc] * (len(commands) - len(replies))
    except BaseException:
        connection.disconnect()
        raise
    return replies


def _packed(commands: Sequence[tuple[Any, ...]], encoder: Any) -> list[bytes]:
    """Return commands as Redis reads them, in chunks of some size.

    redis-py's own packer is made for one command of a few arguments: over a batch of jobs it took
    a third of the time that the whole hand-over takes.
    """
    chunks: list[bytes] = []
    small: list[bytes] = []
    size = 0
    for command in commands:
        parts = [part if type(part) is bytes else _encoded(part, encoder) for part in command]
        small.append(b"*%d\r\n" % len(parts))
        small += [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
        size += sum(map(len, parts))
        if size > CHUNK:
            chunks.append(b"".join(small))
            small, size = [], 0
    return [*chunks, b"".join(small)] if small else chunks


def _encoded(part: Any, encoder: Any) -> bytes:
    if type(part) is str:
        return part.encode(encoder.encoding, encoder.encoding_errors)
    if type(part) is int:
        return b"%d" % part
    return bytes(encoder.encode(part))


def _reply(read: Callable[[], Reply]) -> Reply:
    try:
        return read()
    except ResponseError as exc:
        return exc
