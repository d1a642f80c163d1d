"""`dispatchers status`: how much waits, runs and failed, by queue and by workflow."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dispatchers._config.api import get_dispatcher
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._journal.values import Count
from dispatchers._models.stats import Stats

from ._arguments import add_command
from ._durations import seconds, spoken
from ._executions_counted import counted
from ._exit import Exit
from ._places import dispatchers, places
from ._screen import Screen
from ._surroundings import selected_target

__all__ = ["add"]

TEXT = """
Show how much waits, runs, is delayed and is dead, queue by queue, and how long the oldest waits.

Executions of workflows that have not ended stand below, workflow by workflow: those that run, those
that are parked until an answer, a timer or a signal comes, and those that are stuck.

A figure that the backend cannot tell is shown as `-`, and null in JSON. What hands work over to
several others shows the sum of what they tell, and names those that tell nothing. Aliases that
hand their work to the same place are shown together.
"""

COLUMNS = ("dispatcher", "queue", "waiting", "running", "delayed", "dead", "oldest")
OF_WORKFLOWS = ("dispatcher", "workflow", "running", "parked", "stuck")
ASK_TIMEOUT = 2.0
"""Seconds that each backend has to answer."""
WATCH_INTERVAL = 2.0
"""Seconds between two looks of `--watch`."""


class Answer(NamedTuple):
    """Figures of dispatchers that share a place."""

    aliases: Sequence[str]
    backend: str
    queues: Sequence[Stats]
    reason: str | None
    failed: bool
    executions: Sequence[Count]


class Answers(NamedTuple):
    """Answers of all places."""

    places: Sequence[Answer]
    failure: str | None
    """Why executions are not known."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "status", run, TEXT, as_json=True)
    parser.add_argument("alias", metavar="ALIAS", nargs="?", help="only this dispatcher")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=seconds,
        const=WATCH_INTERVAL,
        help="look again every 2 s, or so many, until Ctrl-C; with --json one line each",
    )


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Show the figures, once or again and again."""
    selected_target(args.target)
    if args.watch is None:
        return _shown(_answers(args.alias), shown, as_json=args.json)
    try:
        while True:
            answers = _answers(args.alias)
            if args.json:
                shown.raw(json.dumps([_facts(each) for each in answers.places]))
            else:
                shown.clear()
                _shown(answers, shown, as_json=False)
            # Not below a tenth of a second, or `--watch 0` would keep the broker busy.
            time.sleep(max(args.watch, 0.1))
    except KeyboardInterrupt:
        return Exit.OK


def _answers(alias: str | None) -> Answers:
    named = dispatchers() if alias is None else {alias: get_dispatcher(alias)}
    executions = counted(ASK_TIMEOUT)
    found = [_answer(named[each[0]], each, executions.of(each)) for each in places(named)]
    return Answers(found, executions.failure)


def _answer(
    dispatcher: BaseDispatcher, aliases: Sequence[str], executions: Sequence[Count]
) -> Answer:
    # Not `stats()`, which returns an empty list for a failure and for no queues alike.
    found, failure = dispatcher._counted(ASK_TIMEOUT)
    reason = failure
    if not dispatcher.capabilities.stats:
        reason = f"backend {dispatcher.name!r} cannot say how much waits"
    elif silent := sorted(set(_silent(dispatcher))):
        reason = "; ".join(filter(None, (failure, f"not counted is {', '.join(silent)}")))
    if dispatcher.capabilities.runs_here:
        reason = f"nothing waits: {dispatcher.name!r} runs tasks in the call"
    return Answer(aliases, dispatcher.name, found, reason, failure is not None, executions)


def _silent(dispatcher: BaseDispatcher) -> Iterator[str]:
    """Yield the dispatchers behind one that cannot say how much waits."""
    for each in map(get_dispatcher, dispatcher.stands_on(dispatcher.options)):
        if not (each.capabilities.stats or each.capabilities.runs_here):
            yield f"{each.alias!r}: backend {each.name!r} cannot say how much waits"
        yield from _silent(each)


def _shown(answers: Answers, shown: Screen, *, as_json: bool) -> Exit:
    found = answers.places
    if as_json:
        shown.json([_facts(each) for each in found])
    else:
        _show_tables(found, shown)
    for each in found:
        if each.reason is not None and not as_json:
            tell = shown.problem if each.failed else shown.note
            tell(f"{', '.join(each.aliases)} ({each.backend}): {each.reason}")
    if answers.failure is not None:
        shown.problem(f"executions: {answers.failure}")
    failed = answers.failure is not None or any(each.failed for each in found)
    return Exit.PROBLEMS if failed else Exit.OK


def _show_tables(found: Sequence[Answer], shown: Screen) -> None:
    if rows := [_row(each, stats) for each in found for stats in each.queues]:
        shown.table(COLUMNS, rows)
    counts = [count for each in found for count in each.executions]
    if counts:
        shown.line()
        shown.table(OF_WORKFLOWS, [_counts(each) for each in counts])


def _counts(count: Count) -> tuple[str, ...]:
    numbers = map(str, (count.running, count.parked, count.stuck))
    return count.dispatcher, count.workflow, *numbers


def _row(answer: Answer, stats: Stats) -> tuple[str, ...]:
    counts = (stats.waiting, stats.running, stats.delayed, stats.dead)
    oldest = "-" if stats.oldest is None else spoken(float(round(stats.oldest)))
    numbers = ("-" if each is None else str(each) for each in counts)
    return ", ".join(answer.aliases), stats.queue, *numbers, oldest


def _facts(answer: Answer) -> dict[str, object]:
    return {
        "dispatcher": answer.aliases[0],
        "aliases": list(answer.aliases),
        "backend": answer.backend,
        "reason": answer.reason,
        "queues": [{**each._asdict(), "at": each.at.isoformat()} for each in answer.queues],
        "workflows": [each._asdict() for each in answer.executions],
    }
