"""Figures of the dispatchers that another one stands on: of `failover`, `spill` and `outbox`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._models.stats import PartlyCountedError, Stats

__all__ = ["ask", "summed", "told"]

SHARE = 0.9
"""Part of the time in which those behind answer: one that hangs must not cost the figures of all,
which are cut off once all of it has passed."""

Figures = Mapping[str, Sequence[Stats]]
"""Figures of dispatchers, by their aliases."""


def ask(dispatchers: Sequence[BaseDispatcher], timeout: float) -> tuple[Figures, list[str]]:
    """Return the figures of dispatchers, and why those of some are not known.

    Args:
        dispatchers: Those that are asked, one after the other.

        timeout: Seconds for all together: each has an equal part of what is left.
    """
    until = monotonic() + timeout * SHARE
    found: dict[str, Sequence[Stats]] = {}
    failed: list[str] = []
    for place, each in enumerate(dispatchers):
        part = (until - monotonic()) / (len(dispatchers) - place)
        found[each.alias], reason = each._counted(max(part, 0.0))
        if reason is not None:
            failed.append(f"{each.alias!r} ({each.name}): {reason}")
    return found, failed


def told(found: list[Stats], failed: Sequence[str]) -> list[Stats]:
    """Return figures that are known whole.

    Raises:
        PartlyCountedError: They are not; it has what is known.
    """
    if failed:
        raise PartlyCountedError(found, "; ".join(failed))
    return found


def summed(dispatchers: Iterable[BaseDispatcher], figures: Figures) -> list[Stats]:
    """Return what dispatchers count together, by queue.

    A sum has the numbers that are known, and is None where none is.
    """
    rows: dict[str, list[tuple[str, Stats]]] = {}
    for each in dispatchers:
        # Members may share a store, whose dead letters each of them counts.
        store = each.options.dead_letters or f"that of {each.alias}"
        for stats in figures[each.alias]:
            rows.setdefault(stats.queue, []).append((store, stats))
    return [_of_queue(name, found) for name, found in sorted(rows.items())]


def _of_queue(name: str, rows: Sequence[tuple[str, Stats]]) -> Stats:
    found = [stats for _, stats in rows]
    return Stats(
        name,
        waiting=_sum(each.waiting for each in found),
        running=_sum(each.running for each in found),
        delayed=_sum(each.delayed for each in found),
        dead=_dead(rows),
        oldest=max((each.oldest for each in found if each.oldest is not None), default=None),
        at=min(each.at for each in found),
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [each for each in numbers if each is not None]
    return sum(known) if known else None


def _dead(rows: Iterable[tuple[str, Stats]]) -> int | None:
    """Return the dead letters of a queue, those of each store once."""
    stores: dict[str, int] = {}
    for store, each in rows:
        if each.dead is not None:
            stores[store] = max(stores.get(store, 0), each.dead)
    return sum(stores.values()) if stores else None
