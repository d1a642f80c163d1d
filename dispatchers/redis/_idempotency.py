"""Claims by key in a Redis, so that what is delivered twice runs once (C10)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from dispatchers._idempotency import Claim

from ._store import Store

__all__ = ["RedisIdempotencyStore"]

# A value is "run:OWNER" while it runs, and "done" afterwards; the key's own expiry ends both.
_CLAIM = """
local value = redis.call('GET', KEYS[1])
if value == 'done' then
    return -1
end
if value and value ~= 'run:' .. ARGV[1] then
    return redis.call('PTTL', KEYS[1])
end
redis.call('SET', KEYS[1], 'run:' .. ARGV[1], 'PX', ARGV[2])
return 0
"""
_CHANGE = """
if redis.call('GET', KEYS[1]) ~= 'run:' .. ARGV[1] then
    return 0
end
if ARGV[2] == 'release' then
    return redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[2] == 'done' and 'done' or 'run:' .. ARGV[1], 'PX', ARGV[3])
return 1
"""
DONE = -1


class RedisIdempotencyStore(Store):
    """An idempotency store that many machines share.

    A claim that is not completed lasts while its owner renews it, by the server's clock. What a
    Redis forgets at a restart (without an append-only file) may run again.

    Args:
        place: The server's address, or a client; `#prefix` at its end begins all keys.

        timeout: Seconds that each call may take.
    """

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take the key for `ttl` seconds, unless it is done or another's."""
        answer = int(self._run(self._claim, key, owner, _ms(ttl)))
        if answer == DONE:
            return Claim("done")
        return Claim("busy", answer / 1000) if answer > 0 else Claim("claimed")

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Hold the key for `ttl` seconds more; false if it is not the owner's any more."""
        return bool(self._run(self._change, key, owner, "run", _ms(ttl)))

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Remember for `ttl` seconds that the work is done; false if it is not the owner's."""
        return bool(self._run(self._change, key, owner, "done", _ms(ttl)))

    def release(self, key: str, owner: str) -> bool:
        """Give the key back, so that the work can run again; false if it is not the owner's."""
        return bool(self._run(self._change, key, owner, "release"))

    @cached_property
    def _claim(self) -> Any:
        return self._client.register_script(_CLAIM)

    @cached_property
    def _change(self) -> Any:
        return self._client.register_script(_CHANGE)

    def _run(self, script: Any, key: str, *args: object) -> Any:
        name = f"{self._prefix}:claim:{key}"
        return self._within(lambda: script(keys=[name], args=args))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
