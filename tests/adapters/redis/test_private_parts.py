"""Parts of redis-py that it does not promise, and that keep a call within its deadline."""

from __future__ import annotations

import pytest
import redis

from dispatchers import ConfigurationError
from dispatchers.redis import bounded_connection
from dispatchers.testing.canaries import Canary

PARTS = (
    Canary("redis.connection:Connection._sock"),
    Canary("redis.connection:Connection.pid"),
    Canary("redis.connection:Connection.retry"),
    Canary("redis.connection:Connection.connect_check_health"),
    Canary("redis.connection:Connection.send_packed_command", "self", "command"),
    Canary("redis.connection:Connection.read_response"),
    Canary("redis.connection:Connection.disconnect"),
    Canary("redis.connection:Connection.encoder"),
    Canary("redis._parsers.encoders:Encoder.encode", "self", "value"),
    Canary("redis._parsers.encoders:Encoder.encoding"),
    Canary("redis._parsers.encoders:Encoder.encoding_errors"),
    Canary("redis.connection:ConnectionPool._lock"),
    Canary("redis.connection:ConnectionPool._fork_lock"),
    Canary("redis.connection:ConnectionPool.connection_kwargs"),
    Canary("redis.connection:ConnectionPool.connection_class"),
    Canary("redis.connection:ConnectionPool.release", "self", "connection"),
)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_private_part_is_unchanged(part: Canary) -> None:
    """Of the newest redis-py as of the oldest."""
    assert part.problem() is None


@pytest.mark.parametrize("name", ["connect_check_health", "read_response", "send_packed_command"])
def test_a_connection_that_works_otherwise_is_refused(name: str) -> None:
    """C2: without the method that is overridden, nothing would bound a call, and no word said."""
    parts = {key: value for key, value in vars(redis.Connection).items() if key != name}
    other = type("Connection", (), parts)

    with pytest.raises(ConfigurationError, match=rf"{name}.*pip install"):
        bounded_connection(other)
