"""`dispatchers dispatch`: hand over a task by name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import datetime
from time import monotonic
from typing import Any

from pydantic import ValidationError

from dispatchers._config.api import close_all, current, get_dispatcher, resolve, settings_of_task
from dispatchers._dispatch.reporting import refused
from dispatchers._errors import ConfigurationError, RejectedError, nearest
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers._models.validation import options_error
from dispatchers._tasks.task import catalogue

from ._arguments import add_command, arguments_of, meant, pair, whole
from ._durations import duration, seconds, spoken
from ._exit import Exit
from ._rows import dispatch_rows
from ._screen import Screen
from ._surroundings import import_modules, selected_target
from ._typed import typed

__all__ = ["add"]

TEXT = """
Hand over one piece of work: dispatchers dispatch shop.tasks.send_welcome user_id=42.

Values are read as JSON where they are some (42, true, '[1, 2]') and as text otherwise; a task that
is registered decides by its types. Durations are written 90s, 5m, 1h30m. A name that no imported
module registers is handed over only with --by-name, or where no module is configured.

It ends with 0 when the work was handed over (or ran), 1 when it certainly was not (or failed), and
3 when it is unknown: then repeat it only with the same --key.
"""

OPTIONS = (
    "queue",
    "priority",
    "delay",
    "eta",
    "expires",
    "deadline",
    "time_limit",
    "max_attempts",
    "idempotency_key",
    "deduplicate",
    "headers",
    "context",
    "dispatcher",
)


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "dispatch", run, TEXT, as_json=True)
    parser.set_defaults(logs=True)  # a run in this process may fail after the dispatch was ok
    parser.add_argument("task", metavar="TASK", help="the registered name")
    parser.add_argument(
        "pairs", metavar="key=value", nargs="*", type=pair, help="arguments of the task"
    )
    parser.add_argument("--args", metavar="JSON", help="arguments: '{\"user_id\": 42}'")
    parser.add_argument(
        "--from", dest="rows", metavar="FILE", help="a call per line, arguments as JSON; -: stdin"
    )
    parser.add_argument("--by-name", action="store_true", help="the task may be unknown here")
    _add_when(parser)
    _add_how(parser)


def _add_when(parser: argparse.ArgumentParser) -> None:
    when = parser.add_argument_group("when")
    due = when.add_mutually_exclusive_group()
    due.add_argument("--delay", metavar="5m", type=duration, help="run it so much later")
    due.add_argument("--eta", metavar="INSTANT", type=_instant, help="2030-01-01T09:00+00:00")
    when.add_argument(
        "--expires", metavar="1h", type=duration, help="skip it if not started by then"
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how")
    how.add_argument("--dispatcher", metavar="ALIAS", help="through this dispatcher")
    how.add_argument("--queue", metavar="NAME", help="on this queue")
    how.add_argument("--priority", metavar="N", type=int, help="-100 to 100, higher first")
    how.add_argument("--key", dest="idempotency_key", metavar="TEXT", help="idempotency key")
    how.add_argument(
        "--deduplicate", action="store_true", default=None, help="the backend must know the key"
    )
    how.add_argument("--deadline", metavar="2s", type=seconds, help="for handing over")
    how.add_argument("--time-limit", metavar="1m", type=seconds, help="for one run")
    how.add_argument("--max-attempts", metavar="N", type=whole, help="tries in all")
    how.add_argument(
        "--header", dest="headers", metavar="key=value", type=pair, action="append", help="a header"
    )
    how.add_argument("--context", metavar="JSON", type=_object, help="a free JSON map")


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an instant: write 2030-01-31T08:00:00+01:00"
        ) from None
    if found.utcoffset() is None:
        raise argparse.ArgumentTypeError(f"{text!r} needs an offset from UTC: add Z, or +01:00")
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        return arguments_of(text)
    except ConfigurationError as exc:
        raise argparse.ArgumentTypeError(str(exc).removeprefix("--args ")) from None


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Hand it over and say what became of it."""
    # A target that cannot be selected is refused before any task module is imported.
    selected_target(args.target)
    import_modules()
    options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    # argparse collects repeated options as pairs.
    if "headers" in options:
        options["headers"] = dict(options["headers"])
    if args.rows is not None:
        return dispatch_rows(args, options, shown)
    response = _dispatched(args, options)
    left = close_all(current().exit_timeout)
    _show(shown, response, left, as_json=args.json)
    if response.status is DispatchStatus.UNKNOWN:
        return Exit.UNKNOWN
    return Exit.OK if response.ok and not left else Exit.PROBLEMS


def _dispatched(args: argparse.Namespace, options: dict[str, Any]) -> DispatchResponse:
    given = arguments_of(args.args)
    task = catalogue.find(args.task)
    if task is not None:
        arguments = typed(task, given, args.pairs)
        return task.options(**options).dispatch(**arguments)
    if not args.by_name and (known := [each.name for each in catalogue.all()]):
        raise ConfigurationError(
            f"no task {args.task!r} is registered{nearest(args.task, known)} "
            "(--by-name hands it over all the same)"
        )
    return _by_name(args.task, {**given, **meant(args.pairs)}, options)


def _by_name(name: str, payload: Mapping[str, Any], options: dict[str, Any]) -> DispatchResponse:
    """Hand over a task that only its worker knows."""
    values: dict[str, Any] = {**settings_of_task(name)}
    values.pop("on_handler_error", None)
    named: str | None = options.pop("dispatcher", None)
    alias: str | None = values.pop("dispatcher", None)
    try:
        request = DispatchRequest.model_validate(
            {**values, **options, "task": name, "payload": payload}
        )
    except ValidationError as exc:
        raise options_error(exc, DispatchRequest, f"task {name!r}") from None
    try:
        return (get_dispatcher(named) if named else resolve(alias)).dispatch(request)
    except (ConfigurationError, RejectedError) as exc:
        return refused(named or alias or "default", "", exc, monotonic())


def _show(shown: Screen, response: DispatchResponse, left: int, *, as_json: bool) -> None:
    if as_json:
        shown.json(response.model_dump(mode="json", exclude={"request"}))
    else:
        shown.fields(_facts(response))
    if left:
        shown.problem(
            f"{left} pieces of accepted work were not finished when this process ended: "
            f"backend {response.backend!r} keeps work in its process only"
        )


def _facts(response: DispatchResponse) -> dict[str, str]:
    through = f"{response.dispatcher} ({response.backend or 'no backend'})"
    facts = {"status": str(response.status), "dispatcher": through, "request": response.request_id}
    if response.task_id:
        facts["task id"] = response.task_id
    if response.waived:
        facts["left out"] = ", ".join(response.waived)
    if response.passed:
        said = (f"{p.dispatcher}: {p.error.category}, {p.error.message}" for p in response.passed)
        facts["passed over"] = "; ".join(said)
    if (error := response.error) is not None:
        facts["category"] = str(error.category)
        facts["error"] = error.message
        facts["retryable"] = "yes" if error.retryable else "no"
    return {**facts, "took": spoken(response.elapsed)}
