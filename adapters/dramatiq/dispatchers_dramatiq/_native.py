"""Dramatiq's own actors, dispatched to by name as they are."""

from __future__ import annotations

from typing import Any

from dispatchers.native import NativeCall


def native(actor: Any, *, dispatcher: str = "default", **options: Any) -> NativeActor:
    """Return a call of an existing actor, which need not be rewritten.

    Its message is the one that `send` writes; what it does with it, retries included, is
    Dramatiq's.

    Args:
        actor: The actor, or its name; it need not be registered here.

        dispatcher: The alias of a dispatcher of `dramatiq`.

        options: `queue`, `priority`, `delay`, `eta`, `expires`, `time_limit` or `deadline`, as a
            request takes them. Without `queue` it is the actor's, where the
            broker knows the actor, else the dispatcher's.
    """
    if not isinstance(actor, str):
        options = {"queue": str(actor.queue_name), **options}
    return NativeActor(
        actor if isinstance(actor, str) else str(actor.actor_name), dispatcher, options
    )


class NativeActor(NativeCall):
    """Dispatches to one of Dramatiq's own actors; made by `native`."""

    backend = "dramatiq"
    kind = "actor"
