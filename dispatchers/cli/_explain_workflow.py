"""Facts of a workflow for `dispatchers explain`: its journal, turns, timers and what they cost."""

from __future__ import annotations

from typing import Any

from dispatchers._config.api import resolve
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError, RejectedError
from dispatchers._journal.loading import journal_name
from dispatchers._journal.protocol import LEASE
from dispatchers._models.base import Model
from dispatchers._models.redaction import shown
from dispatchers._tasks.task import AnyTask

from ._durations import spoken

__all__ = ["SAME_KEY", "WorkflowFacts", "facts_of", "in_words_of"]


class WorkflowFacts(Model):
    """Facts that only workflows have, for programs."""

    journal: str | None
    """The journal as `workflows` names it; None if there is none."""
    problem: str | None
    """The reason why there is no journal."""
    shares: bool
    """Journal and queue are one file, and one transaction."""
    versions: tuple[int, ...]
    """The versions of the code that are registered here."""
    begins_on: int
    """The version on which executions begin."""
    timers: float
    """Seconds that a timer may be late where no message wakes it: the sweep's."""
    longest_message: float | None
    """Seconds for which the dispatcher can delay the message that wakes; 0 if it cannot, None for
    any time."""


def facts_of(task: Any) -> WorkflowFacts | None:
    """Return the facts of a workflow; None for another task."""
    if not task.is_workflow:
        return None
    # Late: workflows bring asyncio, which most commands do without.
    from dispatchers.workflows._sweep import INTERVAL

    name, problem = _journal()
    dispatcher = _dispatcher(task)
    return WorkflowFacts(
        journal=name,
        problem=problem,
        shares=name is not None and name == getattr(dispatcher, "journal", None),
        versions=tuple(sorted(task.versions)),
        begins_on=task.latest,
        timers=INTERVAL,
        longest_message=_longest(dispatcher),
    )


def _journal() -> tuple[str | None, str | None]:
    try:
        return shown(journal_name()), None
    except ConfigurationError as exc:
        return None, str(exc)


def _dispatcher(task: AnyTask) -> BaseDispatcher | None:
    try:
        return resolve(task._values()["dispatcher"])
    except (ConfigurationError, RejectedError):
        return None


def _longest(dispatcher: BaseDispatcher | None) -> float | None:
    if dispatcher is None or not (_is_here(dispatcher) or dispatcher.capabilities.delay):
        return 0.0
    # A timer of this process needs no message.
    limit = None if _is_here(dispatcher) else dispatcher.capabilities.max_delay
    return None if limit is None else limit.total_seconds()


COSTS = {
    True: "a local step one commit, a step two: its own and that of the turn that goes on",
    False: "a local step one commit of the journal, a step six, and two messages",
}
"""By whether journal and queue are one file; counted in the file's log in November 2026."""
SAME_KEY = "one execution, which has the key in its id"


def _is_here(dispatcher: BaseDispatcher) -> bool:
    return getattr(dispatcher, "journal", None) == "memory"


def in_words_of(found: WorkflowFacts) -> dict[str, str]:
    """Return the same for people."""
    late = spoken(LEASE + found.timers)
    return {
        "is a workflow": _versions(found),
        "journal": _kept(found),
        "turns go": "the way of the start; a step goes the way of its own task",
        "timers": _timers(found),
        "an await costs": COSTS[found.shares],
        "if a worker dies": f"another goes on, once the message comes again, or within {late}",
        "if it fails": "it is kept as failed: see dispatchers executions resume",
    }


def _versions(found: WorkflowFacts) -> str:
    others = [str(number) for number in found.versions if number != found.begins_on]
    former = f"; executions that began on {', '.join(others)} stay there" if others else ""
    return f"executions begin on version {found.begins_on}{former}"


def _kept(found: WorkflowFacts) -> str:
    if found.journal is None:
        return f"none, so that no execution begins: {found.problem}"
    if found.journal == "memory":
        return "in this process: executions are lost with it"
    if found.shares:
        return (
            f"{found.journal}, the file of the queue: what a turn or a step records, and its "
            "message, are one transaction"
        )
    return f"{found.journal}; what is recorded leaves after its commit, until it has left"


def _timers(found: WorkflowFacts) -> str:
    late = f"the sweep of a worker, up to {spoken(found.timers)} late"
    if found.longest_message is None:
        return f"wake on time; a wake-up that is lost is made good by {late}"
    if not found.longest_message:
        return f"wake by {late}"
    return f"wake on time up to {spoken(found.longest_message)} ahead; beyond that by {late}"
