"""`dispatchers explain`: what will happen to a task, known without network."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dispatchers._config.api import resolve, state
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError, RejectedError
from dispatchers._models.base import Model
from dispatchers._models.capabilities import OPTIONS
from dispatchers._models.paths import paths_in
from dispatchers._models.redaction import shown
from dispatchers._tasks.task import AnyTask

from ._arguments import add_command
from ._durations import spoken
from ._exit import Exit
from ._explain_way import Stop, drawn, places, way_of
from ._explain_workflow import SAME_KEY, WorkflowFacts, facts_of, in_words_of
from ._fit import misfits, sample, waits
from ._screen import Screen
from ._tasks import NONE, some_tasks

__all__ = ["Explanation", "add", "explained"]

TEXT = """
Explain what happens to tasks: the way they go, how long a call waits, what follows a failure.

Reads the configuration only; no backend is contacted. Without names, all tasks of the configured
modules are explained.
"""

GRACE = 0.25
"""Seconds beyond its deadline within which a dispatch answers (C2)."""
SHOWN = 6
"""Waits between attempts that are written out."""

Treatment = Literal["backend", "store", "carried"]


class Explanation(Model):
    """Fate of a task's dispatches, for programs."""

    task: str
    """The registered name."""
    origin: str
    """Module and function."""
    dispatcher: str | None
    """The alias that it goes through; None if no dispatcher can be built."""
    wanted: str
    """The alias that it asks for."""
    backend: str | None
    """The backend's name."""
    way: Stop | None = None
    """The dispatcher, and those that it hands over to, as `failover`, `spill` and `outbox` do."""
    may_lie: tuple[str, ...] = ()
    """Aliases of the dispatchers that it hands over to, and of those that these do."""
    queue: str | None
    """The queue; None leaves it to the backend."""
    answer: str | None
    """The status of a dispatch that goes well."""
    durable: bool
    """Accepted work survives the death of every process involved."""
    longest_wait: float | None
    """Seconds that a dispatch takes at most; None is as long as the task runs."""
    time_limit: float | None
    """Seconds for one run; None means no limit."""
    kills: bool
    """A synchronous run that overruns its time limit is stopped."""
    attempts: int
    """Attempts in all."""
    waits: tuple[float, ...]
    """Seconds before each further attempt."""
    on_handler_error: str
    """`raise` to the transport, or `log`."""
    dead_letters: str | None
    """The store of dead letters; None if failures are only logged."""
    refuses: tuple[str, ...]
    """Options that the backend cannot do: a request with one of them is rejected."""
    waives: tuple[str, ...]
    """Options that the configuration allows to be left out."""
    key: Treatment
    """Treatment of an idempotency key: deduplicated by the backend or the worker's store, or
    carried only."""
    store: str | None
    """The worker's idempotency store."""
    files: dict[str, str] = Field(default_factory=dict)
    """Options that name a file, with its absolute path."""
    problems: tuple[str, ...]
    """Misfits."""
    workflow: WorkflowFacts | None = None
    """Facts of a workflow; None for another task."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "explain", run, TEXT, as_json=True)
    parser.add_argument("tasks", metavar="TASK", nargs="*", help="names of tasks; default: all")


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Explain each task."""
    found = [explained(task) for task in some_tasks(args.tasks)]
    if args.json:
        shown.json([each.model_dump(mode="json") for each in found])
        return Exit.OK
    if not found:
        shown.note(NONE)
    for number, each in enumerate(found):
        if number:
            shown.line()
        shown.heading(each.task)
        shown.fields(in_words(each))
    return Exit.OK


def explained(task: AnyTask) -> Explanation:
    """Return the fate of a task's dispatches."""
    wanted = str(task._values().get("dispatcher") or "default")
    # Collected first: they are shown even where no dispatcher can be built.
    wrong = tuple(message for _, message in misfits(task))
    try:
        return _routed(task, wanted, resolve(wanted), wrong)
    except (ConfigurationError, RejectedError) as exc:
        return _stranded(task, wanted, (str(exc), *wrong))


def _stranded(task: AnyTask, wanted: str, wrong: tuple[str, ...]) -> Explanation:
    known = {"task": task.name, "origin": task.origin, "wanted": wanted, "problems": wrong}
    nothing = dict.fromkeys(
        ("dispatcher", "backend", "queue", "answer", "longest_wait", "time_limit", "dead_letters")
    )
    rest = {"durable": False, "kills": False, "attempts": 1, "waits": (), "refuses": OPTIONS}
    more = {"on_handler_error": "raise", "waives": (), "key": "carried", "store": None}
    return Explanation.model_validate({**known, **nothing, **rest, **more})


def _routed(
    task: AnyTask, wanted: str, dispatcher: BaseDispatcher, wrong: tuple[str, ...]
) -> Explanation:
    request, way = sample(task), way_of(dispatcher)
    can, options = dispatcher.capabilities, dispatcher.options
    # What will happen, not what was asked for: without retries there is one attempt.
    attempts = (request.max_attempts or task.max_attempts) if can.retries else 1
    missing = [option for option in OPTIONS if not can.supports(option)]
    return Explanation(
        task=task.name,
        origin=task.origin,
        dispatcher=dispatcher.alias,
        wanted=wanted,
        backend=dispatcher.name,
        way=way,
        may_lie=places(way),
        queue=dispatcher.queue_of(request),
        answer=_status(dispatcher),
        durable=can.durable,
        # A run in the call has no bound here: a deadline limits handing over only.
        longest_wait=None if can.runs_here else options.deadline + GRACE,
        time_limit=request.time_limit or task.time_limit,
        kills=can.kills,
        attempts=attempts,
        waits=tuple(waits(attempts, request.backoff or task.backoff)),
        on_handler_error=task.on_handler_error or options.on_handler_error or "raise",
        dead_letters=_letters_kept(dispatcher),
        refuses=tuple(option for option in missing if option not in options.waive),
        waives=tuple(option for option in missing if option in options.waive),
        key=_treatment(dispatcher),
        # Without the password that an address may have.
        store=options.idempotency and shown(options.idempotency),
        files=paths_in(options),
        problems=wrong,
        workflow=facts_of(task),
    )


def _status(dispatcher: BaseDispatcher) -> str:
    """Return the status of a dispatch that goes well."""
    if dispatcher.name == "outbox":
        return "deferred"
    return "executed" if dispatcher.capabilities.runs_here else "accepted"


def _letters_kept(dispatcher: BaseDispatcher) -> str | None:
    if (spec := dispatcher.options.dead_letters) is not None:
        return shown(spec)
    if not dispatcher.capabilities.dead_letters:
        return None
    path = paths_in(dispatcher.options).get("path")
    return f"the queue file {path}" if path else f"the queue of backend {dispatcher.name!r}"


def _treatment(dispatcher: BaseDispatcher) -> Treatment:
    if dispatcher.capabilities.deduplicate:
        return "backend"
    return "store" if dispatcher.options.idempotency else "carried"


# In words.


def in_words(found: Explanation) -> Mapping[str, str]:
    """The same for people."""
    problems = {f"problem {n}": text for n, text in enumerate(found.problems, 1)}
    if found.dispatcher is None:
        lost = "every dispatch is rejected: its dispatcher cannot be used"
        return {"defined in": found.origin, "dispatch": lost, **problems}
    return {
        "defined in": found.origin,
        "goes through": _way(found),
        **({"on its way": drawn(found.way)} if found.way and found.may_lie else {}),
        **({"work may lie with": _places_of(found)} if found.may_lie else {}),
        **({"in": found.files["path"]} if "path" in found.files else {}),
        "dispatch says": _answer(found),
        "a caller waits": _wait(found),
        **(_of_a_run(found) if found.workflow is None else in_words_of(found.workflow)),
        "refuses": ", ".join(found.refuses) or "nothing",
        **({"leaves out": f"{', '.join(found.waives)} (waived)"} if found.waives else {}),
        "same key twice": _key(found) if found.workflow is None else SAME_KEY,
        **problems,
    }


def _of_a_run(found: Explanation) -> Mapping[str, str]:
    return {"one run": _run_limit(found), "if it fails": _failure(found)}


def _way(found: Explanation) -> str:
    queue = f", queue {found.queue!r}" if found.queue else ""
    fallback = ""
    # An alias that is not configured falls back to `default`: a misspelt one would go unseen.
    if found.wanted not in state.snapshot.aliases():
        fallback = f", because {found.wanted!r} is not configured"
    return f"dispatcher {found.dispatcher!r}, backend {found.backend!r}{queue}{fallback}"


def _places_of(found: Explanation) -> str:
    names = ", ".join(map(repr, found.may_lie))
    if path := found.files.get("path"):
        return f"{names}, or the file {path} until that takes it"
    if found.backend == "outbox":
        return f"{names}, or the database until the first of them takes it"
    return f"{names}: the first of them that certainly takes it"


def _answer(found: Explanation) -> str:
    if found.answer == "executed":
        return "executed, or failed: the task runs in the call"
    if found.answer == "deferred":
        return "deferred, as a row of the transaction; once committed it survives every process"
    kept = "survives the death of every process" if found.durable else "is lost with its process"
    held = "; deferred, while it waits in the file" if found.backend == "spill" else ""
    return f"accepted, once the backend has it{held}; what is accepted {kept}"


def _wait(found: Explanation) -> str:
    if found.longest_wait is None:
        return "until the task has run: a deadline never cuts a run"
    return f"{spoken(found.longest_wait)} at most"


def _run_limit(found: Explanation) -> str:
    if found.time_limit is None:
        return "no time limit"
    stop = "is killed" if found.kills else "is told to stop, an async one cancelled"
    return f"may take {spoken(found.time_limit)}; a longer one {stop}"


def _failure(found: Explanation) -> str:
    if found.answer == "executed" and found.attempts == 1:
        return "the response says so (failed); it is not tried again"
    tries = f"tried {found.attempts} times in all{_pauses(found.waits)}, then " * (
        found.attempts > 1
    )
    return f"{tries}{_end(found)}"


def _pauses(pauses: tuple[float, ...]) -> str:
    shown = ", ".join(spoken(each) for each in pauses[:SHOWN])
    more = f" ... {spoken(pauses[-1])}" if len(pauses) > SHOWN else ""
    return f" (after {shown}{more})"


def _end(found: Explanation) -> str:
    if found.on_handler_error == "log":
        return "logged as an error and done (on_handler_error = log)"
    if found.dead_letters:
        return f"kept as a dead letter in {found.dead_letters}: see dispatchers dead list"
    return 'logged as an error and gone: dead_letters = "sqlite:PATH" would keep it'


def _key(found: Explanation) -> str:
    if found.key == "backend":
        return "deduplicated by the backend"
    if found.key == "store":
        return f"runs once: the worker asks the store {found.store}"
    return 'runs twice: the key is only carried; idempotency = "sqlite:PATH" would deduplicate'
