"""`dispatchers move`: what waits in one backend, moved to another."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from dispatchers._config.api import get_dispatcher
from dispatchers._config.registry import load_backend, names
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.configured import ConfiguredBackend
from dispatchers._errors import ConfigurationError, nearest
from dispatchers._models.stats import Stats
from dispatchers._runtime.log_format import log_to_stderr
from dispatchers._worker.signals import StopFlag, stopped_by_signals
from dispatchers.moving import MOST_REFUSED, Claims, Counts, Move

from ._arguments import add_command
from ._exit import Exit
from ._places import same_place
from ._screen import Screen
from ._surroundings import import_modules, selected_target

__all__ = ["add"]

TEXT = """
Move what waits from one dispatcher of the target to another, while the workers of both go on.

Each piece of work goes one way: it is claimed as the workers of the old backend claim it, handed to
the new one under the same id, and forgotten by the old one once the new one has it. What is
scheduled for later is moved too, with its time. Work that no dispatcher has sent is left where it
is, and so is what the new backend refuses: the reasons are shown, and the exit code is 1.

It may be stopped by Ctrl-C, or killed, and run again: what was claimed goes back to the old
backend. Dispatch to the new one before it is run, or it has no end.
"""
ASK_TIMEOUT = 5.0
"""Seconds that a backend has to say what waits."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "move", run, TEXT, as_json=True)
    option = parser.add_argument
    option("--from", metavar="OLD", dest="source", required=True, help="the alias work waits at")
    option("--to", metavar="NEW", required=True, help="the alias that gets it")
    option("--queue", metavar="NAME", action="append", help="only this queue; may be repeated")
    option("--dry-run", action="store_true", help="only count what waits")
    option("--follow", action="store_true", help="go on with what comes later, until Ctrl-C")


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Move until nothing waits."""
    selected_target(args.target)
    import_modules()
    log_to_stderr("WARNING")
    old, new = get_dispatcher(args.source), get_dispatcher(args.to)
    claims = _claims(old, new, args.queue)
    waiting = _waiting(old, args.queue)
    if args.dry_run:
        return _counted(waiting, shown, as_json=args.json)
    move, stop = _moved(claims, old, new, args.follow, waiting, shown)
    ended = not stop.is_set() or args.follow
    return _shown(move, old, new, ended, shown, as_json=args.json)


# What can be moved.


def _claims(old: BaseDispatcher, new: BaseDispatcher, queues: Sequence[str] | None) -> Claims:
    """Return the claims on the old backend.

    Raises:
        ConfigurationError: Work cannot be moved from here to there, or one cannot be reached.
    """
    if old.alias == new.alias:
        raise ConfigurationError(f"--from and --to are both {old.alias!r}: name two dispatchers")
    _refuse_passing(new)
    old._contact()
    new.check(contact=True)
    claims = old._moving(queues)
    if not isinstance(claims, Claims):
        able = ", ".join(_able()) or "none"
        raise ConfigurationError(
            f"backend {old.name!r} of {old.alias!r} gives no work away: {able} can"
        )
    for each in _leaves(new):
        if same_place(old, each) or _store(each) == claims.store:
            raise ConfigurationError(
                f"{old.alias!r} and {new.alias!r} keep their work in the same place: "
                "there is nothing to move"
            )
    return claims


def _refuse_passing(new: BaseDispatcher) -> None:
    if new.capabilities.runs_here:
        raise ConfigurationError(
            f"{new.alias!r} ({new.name}) runs tasks in the call: move to a backend that keeps work"
        )
    if not new.capabilities.durable:
        raise ConfigurationError(
            f"{new.alias!r} ({new.name}) keeps work in the memory of this process, which ends: "
            "move to a backend that keeps it"
        )


def _leaves(new: BaseDispatcher) -> Iterator[BaseDispatcher]:
    """Yield the dispatchers that have the work in the end: those behind a `failover`, say."""
    aliases = new.stands_on(new.options)
    if not aliases:
        yield new
    for alias in aliases:
        yield from _leaves(get_dispatcher(alias))


def _store(new: BaseDispatcher) -> str | None:
    try:
        found = new._moving(None)
    except ConfigurationError:
        return None
    return found.store if isinstance(found, Claims) else None


def _able() -> Iterator[str]:
    """Yield the names of the installed backends that work can be moved from."""
    for name in names():
        try:
            cls = load_backend(name)
        except ConfigurationError:
            continue
        if cls._moving is not ConfiguredBackend._moving:
            yield name


# What waits.


def _waiting(old: BaseDispatcher, queues: Sequence[str] | None) -> list[Stats]:
    found = old.stats(timeout=ASK_TIMEOUT)
    known = {each.queue for each in found}
    for name in queues or ():
        if known and name not in known:
            raise ConfigurationError(f"{old.alias!r} has no queue {name!r}{nearest(name, known)}")
    return [each for each in found if queues is None or each.queue in queues]


def _counted(waiting: Sequence[Stats], shown: Screen, *, as_json: bool) -> Exit:
    if as_json:
        facts = [{"queue": s.queue, "waiting": s.waiting, "delayed": s.delayed} for s in waiting]
        shown.json(facts)
        return Exit.OK
    rows = [(each.queue, _number(each.waiting), _number(each.delayed)) for each in waiting]
    shown.table(("queue", "waiting", "delayed"), rows)
    shown.note("nothing was moved; work that no dispatcher has sent is counted too, and would stay")
    return Exit.OK


def _number(count: int | None) -> str:
    return "-" if count is None else str(count)


# The move.


def _moved(
    claims: Claims,
    old: BaseDispatcher,
    new: BaseDispatcher,
    follow: bool,
    waiting: Sequence[Stats],
    shown: Screen,
) -> tuple[Move, StopFlag]:
    total = sum((each.waiting or 0) + (each.delayed or 0) for each in waiting)
    stop = StopFlag()
    with (
        stopped_by_signals(stop.set),
        shown.progress(f"{old.alias} to {new.alias}", total) as bar,
    ):
        move = Move(claims, new, lambda counts: bar.show(counts.moved, _aside(counts)))
        move.run(stop.is_set, follow=follow)
    return move, stop


def _aside(counts: Counts) -> str:
    refused = counts.refused.total()
    return f"{refused} refused" if refused else ""


def _shown(
    move: Move,
    old: BaseDispatcher,
    new: BaseDispatcher,
    ended: bool,
    shown: Screen,
    *,
    as_json: bool,
) -> Exit:
    counts = move.counts
    facts = {
        "moved": counts.moved,
        "known": counts.known,
        "not_ours": move.foreign,
        "refused": dict(counts.refused),
        "in_doubt": counts.in_doubt,
        "ended": ended and not move.is_full,
    }
    if as_json:
        shown.json(facts)
    else:
        _say(move, old, new, ended, shown)
    if counts.refused or counts.in_doubt:
        return Exit.PROBLEMS
    return Exit.OK if ended else Exit.INTERRUPTED


def _say(move: Move, old: BaseDispatcher, new: BaseDispatcher, ended: bool, shown: Screen) -> None:
    counts = move.counts
    known = f", {counts.known} of them were there already" if counts.known else ""
    shown.line(f"{counts.moved} moved from {old.alias!r} to {new.alias!r}{known}")
    if move.foreign:
        shown.line(f"{move.foreign} left: not ours")
    for why, number in counts.refused.most_common():
        shown.problem(f"{number} left: {why}")
    if counts.in_doubt:
        shown.problem(
            f"{counts.in_doubt} left, and {new.alias!r} may have them too, under the same ids"
        )
    if move.is_full:
        shown.problem(f"ended: {MOST_REFUSED} pieces of work were refused")
    elif not ended:
        shown.note("stopped before the end: the same command goes on")
