"""`dispatchers dead`: list, edit, replay and delete dead letters."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from pydantic import ValidationError

from dispatchers._errors import ConfigurationError
from dispatchers._models.dead_letter import DeadLetter
from dispatchers._models.envelope import EnvelopeError, decode, encode
from dispatchers._models.request import DispatchRequest
from dispatchers._models.validation import options_error
from dispatchers._tasks.task import catalogue

from ._arguments import add_command, arguments_of, meant, pair, whole
from ._dead_letters import Found, Result, find, matching
from ._dead_letters import replay as replayed
from ._exit import Exit
from ._screen import Screen
from ._surroundings import import_modules, selected_target
from ._typed import typed

__all__ = ["add"]

TEXT = """
List dead letters, edit them, dispatch them again, or delete them.

The stores of every dispatcher of the target and of [endpoint] are looked into. The first characters
of an id are enough where no other id begins so. A replayed letter keeps its id and is removed only
once the backend has the work.
"""

PAGE = 100
"""Letters that a table shows unless told otherwise."""


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
    parser.add_argument(
        "--limit", metavar="N", type=whole, help="at most so many; default: 100, with --json all"
    )


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
    parser.add_argument(
        "--alias", metavar="ALIAS", help="of this dispatcher, or [endpoint]; default: all"
    )


# What they do.


def _import_settings() -> None:
    # A framework's settings are known once its module is imported; a task module that is broken
    # must not hide the dead letters of its tasks.
    with contextlib.suppress(ConfigurationError):
        import_modules()


def show_list(args: argparse.Namespace, shown: Screen) -> Exit:
    """List dead letters."""
    _import_settings()
    selected_target(args.target)
    limit = args.limit or (None if args.json else PAGE)
    # One more than is shown tells whether there are more.
    found = matching(args.alias, task=args.task, queue=args.queue, limit=limit and limit + 1)
    kept = islice(found, limit)
    if args.json:
        shown.json_list(_facts(each) for each in kept)
    elif rows := [_row(each) for each in kept]:
        shown.table(("id", "task", "died", "attempts", "why"), rows)
    else:
        shown.note("no dead letters")
    if limit is not None and next(found, None) is not None:
        shown.note(f"there are more than these {limit}, the newest: --limit N shows more")
    return Exit.OK


def _row(found: Found) -> tuple[str, ...]:
    letter = found.letter
    died = letter.died_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return letter.id, letter.task or "?", died, str(letter.attempts), _told(letter)


def _told(letter: DeadLetter) -> str:
    """Return why a letter is dead: words are shown where no exception was raised by the work.

    Those of an exception may repeat arguments, which a list never shows.
    """
    error = letter.error
    if error is None or error.exception_type or not error.message:
        return _why(letter)
    return f"{letter.reason}: {error.message}"


def _why(letter: DeadLetter) -> str:
    kind = letter.error.exception_type if letter.error else None
    return f"{letter.reason}: {kind}" if kind else letter.reason


def _facts(found: Found) -> dict[str, Any]:
    letter = found.letter.model_dump(mode="json", exclude={"body"})
    return {"dispatcher": found.where.owner, **letter}


def show_one(args: argparse.Namespace, shown: Screen) -> Exit:
    """Show one letter with its arguments."""
    _import_settings()
    selected_target(args.target)
    found = find(args.id, args.alias)
    letter = found.letter
    # As JSON, not as a request: a message without an envelope must be shown as well.
    envelope = _envelope(letter)
    if args.json:
        shown.json({**_facts(found), "envelope": envelope})
        return Exit.OK
    facts = {"task": letter.task or "?", "queue": letter.queue or "-", "why": _why(letter)}
    facts |= {"died": letter.died_at.isoformat(" ", "seconds"), "attempts": str(letter.attempts)}
    facts |= {"deliveries": str(letter.deliveries), "dispatcher": found.where.owner}
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
    # Encoded from a validated request: an edit cannot make an envelope that no worker reads.
    found.where.edit(found.letter.id, encode(_changed(request, changes)))
    shown.line(f"changed; to dispatch it: dispatchers dead replay {found.letter.id}")
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
        # Checked by the task's types now, not by a worker after the replay.
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


def _deleted(found: Found) -> Result:
    gone = found.where.delete(found.letter.id)
    if gone:
        return Result(found.letter.id, "deleted")
    return Result(found.letter.id, "kept", "it is gone already")


def _each(args: argparse.Namespace, shown: Screen, act: Callable[[Found], Result]) -> Exit:
    selected_target(args.target)
    import_modules()
    results = _acted(args, shown, act)
    kept = sum(each.word == "kept" for each in results)
    if results:
        shown.table(("id", "state", "why"), results)
    shown.line(f"{len(results) - kept} {args.done}, {kept} kept")
    return Exit.PROBLEMS if kept else Exit.OK


def _acted(args: argparse.Namespace, shown: Screen, act: Callable[[Found], Result]) -> list[Result]:
    """Act on each letter, with a count where all are taken."""
    # All ids are looked up before anything is done: a mistyped one changes nothing.
    wanted = list(_wanted(args)) if args.ids else _wanted(args)
    results: list[Result] = []
    if args.ids:
        return [act(found) for found in wanted]
    with shown.counting(f"{args.done}") as bar:
        for found in wanted:
            results.append(act(found))
            bar.show(len(results))
    return results


def _wanted(args: argparse.Namespace) -> Iterable[Found]:
    if bool(args.ids) is args.all:
        raise ConfigurationError("name the letters by their ids, or say --all")
    if args.all:
        return matching(args.alias, task=args.task, queue=args.queue, limit=args.limit)
    if args.task or args.queue or args.limit:
        raise ConfigurationError("--task, --queue and --limit go with --all, not with ids")
    return [find(each, args.alias) for each in args.ids]
