"""`dispatchers dead`: look at, mend, replay and delete what failed for good."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from dispatchers._catalogue import catalogue
from dispatchers._dead import DeadLetter
from dispatchers._envelope import EnvelopeError, decode, encode
from dispatchers._errors import ConfigurationError
from dispatchers._options import options_error
from dispatchers._request import DispatchRequest

from ._arguments import add_command, arguments_of, meant, pair, whole
from ._exit import Exit
from ._letters import Found, Verdict, find, matching
from ._letters import replay as replayed
from ._screen import Screen
from ._surroundings import import_modules, selected_target
from ._typed import typed

__all__ = ["add"]

TEXT = """
Look at what failed for good, mend it, dispatch it again, or delete it.

A replayed letter keeps its id and is removed only once the backend has the work.
"""


def add(commands: Any) -> None:
    """Add the command and what can be done with it."""
    parser = add_command(commands, "dead", show_list, TEXT)
    actions: Any = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_list(actions)
    _add_show(actions)
    _add_edit(actions)
    _add_many(actions, "replay", replay, "Dispatch dead letters again, and remove them then.")
    _add_many(actions, "delete", delete, "Delete dead letters for ever.")


def _add_list(actions: Any) -> None:
    parser = add_command(
        actions, "list", show_list, "List dead letters, newest first.", as_json=True
    )
    _add_filter(parser)
    parser.add_argument("--limit", metavar="N", type=whole, default=100, help="default: 100")


def _add_show(actions: Any) -> None:
    text = "Show one dead letter with its arguments, which may hold anything."
    parser = add_command(actions, "show", show_one, text, as_json=True)
    _add_alias(parser)
    parser.add_argument("id", metavar="ID")


def _add_edit(actions: Any) -> None:
    text = """
Change the arguments or the queue of a dead letter, before it is replayed.

Arguments that are not named stay as they are: dispatchers dead edit ID user_id=42
"""
    parser = add_command(actions, "edit", edit, text)
    _add_alias(parser)
    parser.add_argument("id", metavar="ID")
    parser.add_argument("pairs", metavar="key=value", nargs="*", type=pair)
    parser.add_argument("--args", metavar="JSON", help="all the arguments anew")
    parser.add_argument("--queue", metavar="NAME", help="replay it to this queue")


def _add_many(actions: Any, name: str, run: Callable[..., Exit], text: str) -> None:
    parser = add_command(actions, name, run, text)
    parser.set_defaults(done=f"{name}d" if name.endswith("e") else f"{name}ed")
    _add_filter(parser)
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--all", action="store_true", help="all of --task and --queue")
    parser.add_argument("--limit", metavar="N", type=whole, help="with --all: at most so many")


def _add_filter(parser: argparse.ArgumentParser) -> None:
    _add_alias(parser)
    parser.add_argument("--task", metavar="NAME", help="only of this task")
    parser.add_argument("--queue", metavar="NAME", help="only of this queue")


def _add_alias(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alias", metavar="ALIAS", help="of this dispatcher; default: all")


# What they do.


def show_list(args: argparse.Namespace, shown: Screen) -> Exit:
    """List dead letters."""
    selected_target(args.target)
    found = matching(args.alias, task=args.task, queue=args.queue, limit=args.limit)
    if args.json:
        shown.json([_facts(each) for each in found])
        return Exit.OK
    rows = [_row(each) for each in found]
    if not rows:
        shown.note("no dead letters")
        return Exit.OK
    shown.table(("id", "task", "died", "attempts", "why"), rows)
    if len(rows) == args.limit:
        shown.note(f"the newest {args.limit}: --limit shows more")
    return Exit.OK


def _row(found: Found) -> tuple[str, ...]:
    letter = found.letter
    died = letter.died_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return letter.id, letter.task or "?", died, str(letter.attempts), _why(letter)


def _why(letter: DeadLetter) -> str:
    kind = letter.error.exception_type if letter.error else None
    return f"{letter.reason}: {kind}" if kind else letter.reason


def _facts(found: Found) -> dict[str, Any]:
    letter = found.letter.model_dump(mode="json", exclude={"body"})
    return {"dispatcher": found.where.dispatcher.alias, **letter}


def show_one(args: argparse.Namespace, shown: Screen) -> Exit:
    """Show one letter with its arguments."""
    selected_target(args.target)
    found = find(args.id, args.alias)
    letter = found.letter
    envelope = _envelope(letter)
    if args.json:
        shown.json({**_facts(found), "envelope": envelope})
        return Exit.OK
    facts = {"task": letter.task or "?", "queue": letter.queue or "-", "why": _why(letter)}
    facts |= {"died": letter.died_at.isoformat(" ", "seconds"), "attempts": str(letter.attempts)}
    facts |= {"deliveries": str(letter.deliveries), "dispatcher": found.where.dispatcher.alias}
    if letter.error is not None:
        facts |= {"error": letter.error.message or "-", "raised at": letter.error.where or "-"}
    shown.fields(facts)
    shown.line(json.dumps(envelope, indent=2, ensure_ascii=False))
    return Exit.OK


def _envelope(letter: DeadLetter) -> object:
    """The envelope as JSON; a message that is none as text."""
    try:
        return json.loads(letter.body)
    except (ValueError, RecursionError):
        return letter.body.decode("utf-8", "backslashreplace")


def edit(args: argparse.Namespace, shown: Screen) -> Exit:
    """Change a letter's arguments or queue."""
    selected_target(args.target)
    import_modules()
    found = find(args.id, args.alias)
    request = _request(found.letter)
    changes: dict[str, Any] = {}
    if args.pairs or args.args:
        changes["payload"] = _payload(request, args)
    if args.queue:
        changes["queue"] = args.queue
    if not changes:
        raise ConfigurationError("nothing to change: give key=value, --args or --queue")
    found.where.edit(args.id, encode(_changed(request, changes)))
    shown.line(f"changed; to dispatch it: dispatchers dead replay {args.id}")
    return Exit.OK


def _request(letter: DeadLetter) -> DispatchRequest:
    try:
        return decode(letter.body)
    except EnvelopeError as exc:
        raise ConfigurationError(f"dead letter {letter.id!r} cannot be edited: {exc}") from None


def _payload(request: DispatchRequest, args: argparse.Namespace) -> dict[str, Any]:
    """The new arguments; a task that is registered here must accept them."""
    given = arguments_of(args.args) if args.args else dict(request.payload)
    if (task := catalogue.find(request.task)) is not None:
        return task.codec.to_json_values(typed(task, given, args.pairs))
    return {**given, **meant(args.pairs)}


def _changed(request: DispatchRequest, changes: dict[str, Any]) -> DispatchRequest:
    try:
        return request.replace(**changes)
    except ValidationError as exc:
        raise options_error(exc, DispatchRequest, f"dead letter {request.id!r}") from None


def replay(args: argparse.Namespace, shown: Screen) -> Exit:
    """Dispatch letters again."""
    return _each(args, shown, replayed)


def delete(args: argparse.Namespace, shown: Screen) -> Exit:
    """Delete letters."""
    return _each(args, shown, _deleted)


def _deleted(found: Found) -> Verdict:
    gone = found.where.delete(found.letter.id)
    if gone:
        return Verdict(found.letter.id, "deleted")
    return Verdict(found.letter.id, "kept", "it is gone already")


def _each(args: argparse.Namespace, shown: Screen, act: Callable[[Found], Verdict]) -> Exit:
    selected_target(args.target)
    import_modules()
    verdicts = [act(found) for found in _wanted(args)]
    kept = sum(each.word == "kept" for each in verdicts)
    if verdicts:
        shown.table(("id", "state", "why"), verdicts)
    shown.line(f"{len(verdicts) - kept} {args.done}, {kept} kept")
    return Exit.PROBLEMS if kept else Exit.OK


def _wanted(args: argparse.Namespace) -> Iterable[Found]:
    if bool(args.ids) is args.all:
        raise ConfigurationError("name the letters by their ids, or say --all")
    if args.all:
        return matching(args.alias, task=args.task, queue=args.queue, limit=args.limit)
    if args.task or args.queue or args.limit:
        raise ConfigurationError("--task, --queue and --limit go with --all, not with ids")
    return [find(each, args.alias) for each in args.ids]
