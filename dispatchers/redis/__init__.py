"""Redis, for adapters and as a place for stores: `pip install "dispatchers[redis]"`.

`bounded_client` gives a client of redis-py whose every step keeps to the time that `within` leaves,
name resolution included; `category_of` and `is_certainly_unsent` say what its exceptions mean::

    client = bounded_client("redis://localhost:6379/0")
    with within(1.5):
        client.rpush("shop:mail", body)

The stores are named in configuration by the server's address: `idempotency = "redis://..."`.
"""

from __future__ import annotations

from ._bounds import bounded_client, bounded_connection, time_left, within
from ._errors import category_of, is_certainly_unsent
from ._idempotency import RedisIdempotencyStore
from ._letters import RedisDeadLetters

__all__ = [
    "RedisDeadLetters",
    "RedisIdempotencyStore",
    "bounded_client",
    "bounded_connection",
    "category_of",
    "is_certainly_unsent",
    "time_left",
    "within",
]
