"""Work that is held before one dispatcher: what `spill` and `outbox` have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._models.fields import NO_HEADERS
from dispatchers._models.request import DispatchRequest
from dispatchers._models.stats import Stats, queue_stats
from dispatchers._stores.loading import count_dead
from dispatchers.backends.failover import FailoverDispatcher

__all__ = ["Behind", "ByLane", "counted", "lane_of", "own_dead", "stale"]

LANE = "lane"
"""The header that names a request's lane, in place of its queue."""
NONE = (0, 0.0)
"""Pieces of work of a lane, and the age of the oldest."""
STALE = 60.0
"""Seconds after which work that nothing hands over is worth a warning."""

ByLane = Mapping[str, tuple[int, float]]
"""Pieces of work by their lanes, and the age of each lane's oldest in seconds."""


def _behind(given: object) -> object:
    if not isinstance(given, str | BaseDispatcher):
        raise ValueError(f"is an alias, not {type(given).__name__}")  # noqa: TRY004 - of a field
    return given


Behind = Annotated[object, AfterValidator(_behind)]
"""The alias of the dispatcher that gets the work, or the dispatcher itself."""


def own_dead(given: BaseDispatcher, to: BaseDispatcher) -> Mapping[str, int]:
    """Count the dead letters of a dispatcher by queue; none where those behind it count them."""
    spec = given.options.dead_letters
    behind = (to, *(to.members if isinstance(to, FailoverDispatcher) else ()))
    shared = spec is not None and any(spec == each.options.dead_letters for each in behind)
    return {} if shared else count_dead(given._dead_letters()) or {}


def lane_of(request: DispatchRequest, queue: str | None) -> str:
    """Return the lane of a request: its header `lane`, else its queue, else the one given."""
    named = request.headers.get(LANE) if request.headers != NO_HEADERS else None
    return named or request.queue or queue or ""


def stale(held: ByLane, place: str, alias: str) -> tuple[str, ...]:
    """Return the warning about work that nothing hands over, if there is some.

    Args:
        held: What is held.

        place: Where it waits, for people.

        alias: That of the dispatcher which a relay is to be started for.
    """
    oldest = max((age for _, age in held.values()), default=0.0)
    if oldest <= STALE:
        return ()
    count = sum(number for number, _ in held.values())
    words = f"{count} pieces of work wait in {place}, the oldest for {oldest:.0f} s: "
    return (f"{words}`dispatchers relay {alias}` hands them over",)


def counted(held: ByLane, behind: Iterable[Stats], dead: Mapping[str, int]) -> list[Stats]:
    """Return what is held and what is dead, by lane, with what the dispatcher behind it counts."""
    found = {each.queue: each for each in behind}
    new = (held.keys() | dead.keys()) - found.keys()
    found |= {each.queue: each for each in queue_stats(queues=new)}
    return [
        each._replace(
            waiting=(each.waiting or 0) + held.get(name, NONE)[0],
            dead=(each.dead or 0) + dead[name] if name in dead else each.dead,
            oldest=max(each.oldest or 0.0, held.get(name, NONE)[1]),
        )
        for name, each in sorted(found.items())
    ]
