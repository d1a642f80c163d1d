"""What `doctor --contact` and `check(contact=True)` look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchers import ConfigurationError
from dispatchers.redis import within

if TYPE_CHECKING:
    from ._dispatcher import RQDispatcher

__all__ = ["OLDEST", "probe"]

OLDEST = (6, 2)
"""The first Redis that has `BLMOVE`, by which idle workers wait: https://redis.io/commands/blmove"""


def probe(dispatcher: RQDispatcher, *, timeout: float) -> None:
    """Reach the server, and see that it is new enough.

    Raises:
        ConfigurationError: It is too old.
    """
    with within(timeout):
        found = str(dispatcher.link.client.info("server")["redis_version"])
    version = tuple(int(part) for part in found.split(".")[:2])
    if version < OLDEST:
        raise ConfigurationError(
            f"dispatcher {dispatcher.alias!r} (rq): Redis {found} at {dispatcher.address} is too "
            "old for its workers: 6.2 or later is needed"
        )
