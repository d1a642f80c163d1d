"""Claims by key in a Redis, so that what is delivered twice runs once (C10)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from dispatchers._models.claim import Claim, ClaimInfo

from ._scripts import Script
from ._store import Store

# A value is "run:OWNER" while it runs, and "done" afterwards; the key's own expiry ends both.
_CLAIM = Script("""
local value = redis.call('GET', KEYS[1])
if value == 'done' then
    return -1
end
if value and value ~= 'run:' .. ARGV[1] then
    return redis.call('PTTL', KEYS[1])
end
redis.call('SET', KEYS[1], 'run:' .. ARGV[1], 'PX', ARGV[2])
return 0
""")
_CHANGE = Script("""
if redis.call('GET', KEYS[1]) ~= 'run:' .. ARGV[1] then
    return 0
end
if ARGV[2] == 'release' then
    return redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[2] == 'done' and 'done' or 'run:' .. ARGV[1], 'PX', ARGV[3])
return 1
""")
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
        answer = int(self._run(_CLAIM, key, owner, _ms(ttl)))
        if answer == DONE:
            return Claim("done")
        return Claim("busy", answer / 1000) if answer > 0 else Claim("claimed")

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Hold the key for `ttl` seconds more; false if it is not the owner's any more."""
        return bool(self._run(_CHANGE, key, owner, "run", _ms(ttl)))

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Remember for `ttl` seconds that the work is done; false if it is not the owner's."""
        return bool(self._run(_CHANGE, key, owner, "done", _ms(ttl)))

    def release(self, key: str, owner: str) -> bool:
        """Give the key back, so that the work can run again; false if it is not the owner's."""
        return bool(self._run(_CHANGE, key, owner, "release"))

    def claims(self) -> Iterator[ClaimInfo]:
        """Return the claims in no order; those that end meanwhile are left out."""
        start = f"{self._prefix}:claim:"
        # SCAN, not KEYS, which would stop the server for all its clients meanwhile.
        for name in self._client.scan_iter(match=f"{start}*", count=1000):
            value, left = self._within(partial(self._looked_at, name))
            # Two commands: it may have ended in between.
            if value is None or left <= 0:
                continue
            done = value == b"done"
            until = datetime.now(UTC) + timedelta(milliseconds=left)
            owner = None if done else value.decode().removeprefix("run:")
            yield ClaimInfo(
                name.decode().removeprefix(start), "done" if done else "running", owner, until
            )

    def _looked_at(self, name: bytes) -> tuple[bytes | None, int]:
        return self._client.get(name), self._client.pttl(name)

    def _run(self, script: Script, key: str, *args: object) -> Any:
        name = f"{self._prefix}:claim:{key}"
        return script.run(self._client, args, timeout=self._timeout, keys=[name])


def _ms(seconds: float) -> int:
    # Redis refuses an expiry of 0.
    return max(1, round(seconds * 1000))
