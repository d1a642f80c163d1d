"""`dispatchers dispatch TASK --from FILE`: many calls of one task, in batches."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from dispatchers._config.api import close_all, current
from dispatchers._errors import ConfigurationError, nearest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers._payload.errors import PayloadError
from dispatchers._tasks.task import AnyTask, catalogue

from ._arguments import arguments_of
from ._exit import Exit
from ._screen import Screen
from ._typed import typed

__all__ = ["dispatch_rows"]

BATCH = 500
"""Rows that are handed over at a time."""
SHOWN = 10
"""Failures that are written out; JSON has all of them."""


class Failure(NamedTuple):
    """A row that was not handed over."""

    line: int
    status: str
    error: str


def dispatch_rows(args: argparse.Namespace, options: dict[str, Any], shown: Screen) -> Exit:
    """Hand over one call per line, and tell how many were not."""
    if args.pairs or args.args or args.idempotency_key or args.by_name:
        raise ConfigurationError(
            "--from takes the arguments from the file: not with key=value, --args, --key, --by-name"
        )
    task = catalogue.find(args.task)
    if task is None:
        known = [each.name for each in catalogue.all()]
        raise ConfigurationError(f"no task {args.task!r} is registered{nearest(args.task, known)}")
    count, failures = _handed_over(task, args.rows, options, shown)
    # Work that runs in this process is finished before the result is told.
    left = close_all(current().exit_timeout)
    _tell(count, failures, left, shown, as_json=args.json)
    if any(each.status == DispatchStatus.UNKNOWN for each in failures):
        return Exit.UNKNOWN
    return Exit.PROBLEMS if failures or left else Exit.OK


def _handed_over(
    task: AnyTask, file: str, options: dict[str, Any], shown: Screen
) -> tuple[int, list[Failure]]:
    count, failures = 0, []
    with _opened(file) as stream, shown.counting("dispatched") as bar:
        rows = _rows(stream)
        # In parts: a file of any size fits, and the first rows go out at once.
        while chunk := list(islice(rows, BATCH)):
            # A new one for each part: what was handed over must not be held in memory.
            batch = task.options(**options).batch()
            sent: list[int] = []
            for line, text in chunk:
                try:
                    batch.add(**typed(task, arguments_of(text), ()))
                    sent.append(line)
                except (ConfigurationError, PayloadError) as exc:
                    words = str(exc).removeprefix("--args ")
                    failures.append(Failure(line, DispatchStatus.REJECTED, words))
            failures += _failed(sent, batch.dispatch())
            count += len(chunk)
            bar.show(count)
    return count, failures


def _failed(lines: list[int], responses: Any) -> Iterator[Failure]:
    response: DispatchResponse
    for line, response in zip(lines, responses, strict=True):
        if response.error is not None:
            yield Failure(line, str(response.status), response.error.message)


def _rows(stream: TextIO) -> Iterator[tuple[int, str]]:
    # Numbered before blank lines are left out: an editor counts those, too.
    return ((n, line) for n, line in enumerate(stream, 1) if line.strip())


@contextmanager
def _opened(file: str) -> Generator[TextIO]:
    if file == "-":
        yield sys.stdin
        return
    try:
        # Spreadsheets write a byte order mark.
        stream = Path(file).open(encoding="utf-8-sig")  # noqa: SIM115 - closed below
    except OSError as exc:
        raise ConfigurationError(f"--from {file!r} cannot be read: {exc.strerror}") from exc
    with stream:
        yield stream


def _tell(count: int, failures: list[Failure], left: int, shown: Screen, *, as_json: bool) -> None:
    if as_json:
        facts = [each._asdict() for each in failures]
        shown.json({"rows": count, "dispatched": count - len(failures), "failures": facts})
        return
    for each in failures[:SHOWN]:
        shown.problem(f"line {each.line}: {each.status}: {each.error}")
    if len(failures) > SHOWN:
        shown.problem(f"and {len(failures) - SHOWN} more: --json lists all of them")
    shown.line(f"{count - len(failures)} of {count} dispatched")
    if left:
        shown.problem(f"{left} pieces of accepted work were not finished when this process ended")
