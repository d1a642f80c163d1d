"""Dead letters in a Redis, for any backend."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from dispatchers._models.dead_letter import DeadLetter

from ._store import Store

PAGE_SIZE = 100
"""Letters that are read at once."""
# A letter that was changed or deleted since it was read is not written over.
_REPLACE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class RedisDeadLetters(Store):
    """A dead-letter store that many machines share.

    It is a hash of letters, and a sorted set of their ids by time.

    Args:
        place: The server's address, or a client; `#prefix` at its end begins all keys.

        timeout: Seconds that each call may take.
    """

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter, in place of one of the same id; Redis has it when this returns."""
        with self._client.pipeline() as pipe:
            pipe.hset(self._letters, letter.id, letter.to_json())
            pipe.zadd(self._order, {letter.id: letter.died_at.timestamp()})
            self._within(pipe.execute)

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> builtins.list[DeadLetter]:
        """Return the newest letters first."""
        wanted = (
            letter
            for letter in self._all()
            if task in (None, letter.task) and queue in (None, letter.queue)
        )
        return builtins.list(islice(wanted, limit))

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002
        """Return one letter; None if there is none of this id."""
        text = self._text(id)
        return None if text is None else DeadLetter.from_json(text)

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter; false if there is none."""
        while (text := self._text(id)) is not None:
            if self._replaced(id, text, DeadLetter.from_json(text, body=body)):
                return True
        return False

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter; false if there is none."""
        with self._client.pipeline() as pipe:
            pipe.hdel(self._letters, id)
            pipe.zrem(self._order, id)
            return any(self._within(pipe.execute))

    @property
    def _letters(self) -> str:
        return f"{self._prefix}:dead"

    @property
    def _order(self) -> str:
        return f"{self._prefix}:dead:order"

    def _all(self) -> Iterator[DeadLetter]:
        start = 0
        while ids := self._page(start):
            for text in self._within(partial(self._client.hmget, self._letters, ids)):
                if text is not None:  # forgotten meanwhile
                    yield DeadLetter.from_json(text)
            start += PAGE_SIZE

    def _page(self, start: int) -> Any:
        end = start + PAGE_SIZE - 1
        return self._within(lambda: self._client.zrevrange(self._order, start, end))

    def _text(self, id: str) -> Any:  # noqa: A002
        return self._within(lambda: self._client.hget(self._letters, id))

    def _replaced(self, id: str, old: object, letter: DeadLetter) -> bool:  # noqa: A002
        new = letter.to_json()
        return bool(
            self._within(lambda: self._client.eval(_REPLACE, 1, self._letters, id, old, new))
        )
