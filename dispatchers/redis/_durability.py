"""The part of "durable" that a Redis server's own settings leave true."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from ._deadline import is_over, time_left, within

REFRESH_INTERVAL = 60.0
"""Seconds that an answer counts: an operator may change settings at any time."""
MAX_WAIT = 0.25
"""Seconds to wait for the answer, in addition to a send that has succeeded already."""
SECTIONS = ("memory", "persistence", "replication")


class Durability(NamedTuple):
    """The fate of accepted work by a server's settings."""

    durable: bool | None
    """False where accepted work can be lost for certain; None where the server does not say."""
    warnings: tuple[str, ...]
    """Losses that are possible, each with the setting that cures it."""
    refuses_writes: bool = False
    """A replica that takes no writes: every dispatch would be refused."""


UNKNOWN = Durability(None, ())


def durability(client: Any) -> Durability:
    """Ask a server which of its settings lose accepted work.

    Only `INFO` and `CONFIG GET save` are sent. A server that forbids them is not known.

    Args:
        client: A client of redis-py.

    Raises:
        redis.RedisError: It could not be reached.
    """
    # One round trip, and no transaction: one forbidden command must not fail the others.
    with client.pipeline(transaction=False) as pipe:
        for section in SECTIONS:
            pipe.info(section)
        pipe.config_get("save")
        *sections, config = pipe.execute(raise_on_error=False)
    info = {k: v for each in sections if isinstance(each, Mapping) for k, v in each.items()}
    saves = _save_points(config)
    return judged(info, saves)


def _save_points(config: object) -> str | None:
    """Return the setting `save`; None where the server does not tell it."""
    if not isinstance(config, Mapping):
        return None
    value = {_text(key): _text(each) for key, each in config.items()}.get("save")
    return value if value is None else value.strip()


def judged(info: Mapping[str, Any], saves: str | None) -> Durability:
    """Return what follows from a server's `INFO` and its save points."""
    if not info:
        return UNKNOWN
    lost = [*_evicted(info), *_not_on_disk(info, saves), *_replica(info)]
    warnings = [text for text, _ in lost]
    read_only = info.get("role") == "slave" and bool(int(info.get("slave_read_only", 1)))
    return Durability(not any(certain for _, certain in lost), tuple(warnings), read_only)


def _evicted(info: Mapping[str, Any]) -> list[tuple[str, bool]]:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction" or not int(info.get("maxmemory", 0)):
        return []
    kept = "work that is waiting" if policy.startswith("allkeys") else "dead letters and keys"
    text = f"maxmemory-policy is {policy}: a full server deletes {kept}; set it to noeviction"
    return [(text, policy.startswith("allkeys"))]


def _not_on_disk(info: Mapping[str, Any], saves: str | None) -> list[tuple[str, bool]]:
    if failed := [key for key in STATUSES if str(info.get(key, "ok")) != "ok"]:
        return [(f"its last write to disk failed ({', '.join(failed)}): see its log", False)]
    if int(info.get("aof_enabled", 1)) or saves is None:
        return []
    if not saves:
        text = "it keeps nothing on disk: all work is lost when it ends; set appendonly to yes"
        return [(text, True)]
    text = "it writes to disk at save points only: what came since the last one is lost when it"
    return [(f"{text} is killed; set appendonly to yes", False)]


STATUSES = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


def _replica(info: Mapping[str, Any]) -> list[tuple[str, bool]]:
    if info.get("role") != "slave":
        return []
    return [("it is a replica, whose own writes are refused or lost: give its master", True)]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class DurabilityWatch:
    """Asks now and then, after a send, if the server may lose accepted work.

    Args:
        client: A bounded client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._known: bool | None = None
        self._asked = float("-inf")

    def durable(self) -> bool | None:
        """Return False where durability is known to be false, else None. Raises nothing.

        The server is asked now and then, in the time that the `within` around this leaves.
        """
        if monotonic() - self._asked > REFRESH_INTERVAL and not is_over():
            # Before the answer: a server that does not answer is not asked again on every send.
            self._asked = monotonic()
            self._known = self._ask()
        return False if self._known is False else None

    def _ask(self) -> bool | None:
        try:
            with within(min(time_left(), MAX_WAIT)):
                return durability(self._client).durable
        except Exception:  # noqa: BLE001 - the work is accepted: this may not change its answer
            return None
