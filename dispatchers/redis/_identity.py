"""The identity of a server, whatever address it was reached under."""

from __future__ import annotations

from typing import Any

__all__ = ["identity"]


def identity(client: Any) -> str:
    """Return a name for the database that a client of redis-py uses, within `within`.

    The same for every address of the server; where the server does not tell its own, the address.
    """
    # Late: this module can be imported without redis-py.
    from redis.exceptions import ResponseError

    settings = client.connection_pool.connection_kwargs
    try:
        found = client.info("server")["run_id"]
    except (ResponseError, KeyError):  # it may be forbidden
        found = settings.get("path") or f"{settings.get('host')}:{settings.get('port')}"
    return f"{found}/{settings.get('db') or 0}"
