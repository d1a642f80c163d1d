"""The forwarders of a process: what it hands over that is held in stores."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from time import monotonic

from dispatchers._config.api import get_dispatcher, state
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._worker.signals import StopFlag
from dispatchers.forwarding import Forwarder, Step

__all__ = ["Relays", "forwarders_of", "holding", "relayed"]


def forwarders_of(dispatchers: Iterable[object]) -> list[Forwarder]:
    """Return the forwarders of dispatchers that hold work in a store, each once."""
    found: list[Forwarder] = []
    for each in dispatchers:
        if isinstance(each, BaseDispatcher):
            found += [f for f in each._forwarders() if isinstance(f, Forwarder) and f not in found]
    return found


def holding() -> dict[str, BaseDispatcher]:
    """Return the target's dispatchers that hold work in a store, by alias; no other is built."""
    aliases = sorted(state.snapshot.aliases())
    return {alias: get_dispatcher(alias) for alias in aliases if _holds(alias)}


def _holds(alias: str) -> bool:
    try:
        cls = state.snapshot.specification(alias).cls
    except Exception:  # noqa: BLE001 - an object, or one that cannot be used: its own use tells
        return bool(forwarders_of([state.snapshot.objects.get(alias)]))
    return cls._forwarders is not BaseDispatcher._forwarders


def relayed(seconds: float) -> int:
    """Hand over what the target's dispatchers hold; return how many pieces of work went.

    Args:
        seconds: No step is begun after so many.

    Raises:
        Exception: What a store raised, after the others had their turn.
    """
    until, count = monotonic() + seconds, 0
    failed: Exception | None = None
    for each in forwarders_of(holding().values()):
        try:
            while monotonic() < until and each.step() is Step.MOVED:
                count += each.moved
        except Exception as exc:  # noqa: BLE001 - anything a store raises; the others may be well
            failed = failed or exc
        each.leave()
    if failed is not None:
        raise failed
    return count


class Relays:
    """Forwarders that run in threads of this process until they are stopped.

    Args:
        forwarders: What hands over.

        drain: End once nothing is held.
    """

    def __init__(self, forwarders: Sequence[Forwarder], *, drain: bool = False) -> None:
        self._drain = drain
        self._stopping = StopFlag()
        self._threads = [
            threading.Thread(target=self._run, args=(each,), name="dispatchers-relay", daemon=True)
            for each in forwarders
        ]

    def start(self) -> None:
        """Begin."""
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """Have the threads end; what is held stays held. Safe in signal handlers."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the threads have ended."""
        until = None if timeout is None else monotonic() + timeout
        for each in self._threads:
            each.join(None if until is None else max(0.0, until - monotonic()))

    def are_over(self) -> bool:
        """Tell whether all of them have ended."""
        return not any(each.is_alive() for each in self._threads)

    def _run(self, forwarder: Forwarder) -> None:
        forwarder.run(self._stopping.is_set, drain=self._drain)
