"""What `doctor --contact` and `check(contact=True)` look at."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dispatchers import ConfigurationError
from dispatchers.redis import within

from ._keys import OURS

if TYPE_CHECKING:
    from ._dispatcher import RQDispatcher

__all__ = ["OLDEST", "probe"]

OLDEST = (6, 2)
"""The first Redis that has `BLMOVE`, by which idle workers wait: https://redis.io/commands/blmove"""


log = logging.getLogger("dispatchers")


def probe(dispatcher: RQDispatcher, *, timeout: float) -> None:
    """Reach the server, see that it is new enough, and name workers that are RQ's alone.

    Raises:
        ConfigurationError: It is too old.
    """
    with within(timeout):
        found = str(dispatcher.link.client.info("server")["redis_version"])
        plain = _plain_workers(dispatcher)
    version = tuple(int(part) for part in found.split(".")[:2])
    if version < OLDEST:
        raise ConfigurationError(
            f"dispatcher {dispatcher.alias!r} (rq): Redis {found} at {dispatcher.address} is too "
            "old for its workers: 6.2 or later is needed"
        )
    for name in plain:
        log.warning(
            "worker %r of RQ serves a queue of %r: for this work it needs `--serializer "
            "rq.serializers.JSONSerializer`, and what it runs is lost when it is killed; "
            "`dispatchers worker` starts one that keeps it",
            name,
            dispatcher.alias,
        )


def _plain_workers(dispatcher: RQDispatcher) -> list[str]:
    """The workers of the configured queues that were not started by us; RQ tells no serializer."""
    client = dispatcher.link.client
    keys = {key for queue in dispatcher.declared for key in client.smembers(f"rq:workers:{queue}")}
    alive = (key for key in keys if client.hexists(key, "birth") and not client.hexists(key, OURS))
    return sorted(key.decode().removeprefix("rq:worker:") for key in alive)
