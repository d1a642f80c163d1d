"""Redis, for adapters and as a place for stores: `pip install "dispatchers[redis]"`.

`bounded_client` gives a client of redis-py whose every step keeps to the time that `within` leaves,
name resolution included; `category_of` and `is_certainly_unsent` say what its exceptions mean::

    client = bounded_client("redis://localhost:6379/0")
    with within(1.5):
        client.rpush("shop:mail", body)

`Script` runs a Lua script for many items in one round trip, and tells their replies apart.
`durability` tells what the server's own settings make of "durable", and `identity` which server it
is. The stores are named in configuration by the server's address: `idempotency = "redis://..."`.

This module can be imported without redis-py; what needs it says so when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatchers._errors import MissingDependencyError
from dispatchers._runtime.importing import import_object, install

from ._deadline import is_over, time_left, within
from ._durability import Durability, DurabilityWatch, durability
from ._errors import category_of, is_certainly_unsent
from ._identity import identity

if TYPE_CHECKING:
    from ._bounds import bounded_client, bounded_connection
    from ._idempotency import RedisIdempotencyStore
    from ._letters import RedisDeadLetters
    from ._scripts import Script

__all__ = [
    "Durability",
    "DurabilityWatch",
    "RedisDeadLetters",
    "RedisIdempotencyStore",
    "Script",
    "bounded_client",
    "bounded_connection",
    "category_of",
    "durability",
    "identity",
    "is_certainly_unsent",
    "is_over",
    "time_left",
    "within",
]

NEED_REDIS_PY = {
    "RedisDeadLetters": "_letters",
    "RedisIdempotencyStore": "_idempotency",
    "Script": "_scripts",
    "bounded_client": "_bounds",
    "bounded_connection": "_bounds",
}


def __getattr__(name: str) -> Any:
    """Import a name that needs redis-py, when it is first asked for.

    Raises:
        MissingDependencyError: redis-py is not installed.
    """
    if name not in NEED_REDIS_PY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = import_object(f"{__name__}.{NEED_REDIS_PY[name]}:{name}")
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "redis":
            raise
        raise MissingDependencyError(
            f"{name} needs redis-py: {install('dispatchers[redis]')}"
        ) from exc
    globals()[name] = found
    return found
