"""`dispatchers worker`: run the work of the selected target."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dispatchers._catalogue import catalogue
from dispatchers._contract import BaseDispatcher
from dispatchers._errors import ConfigurationError
from dispatchers._instances import current, get_dispatcher
from dispatchers._worker import Worker, WorkerOptions

from ._arguments import add_command, whole
from ._durations import seconds, spoken
from ._exit import Exit
from ._places import dispatchers, places
from ._screen import Screen
from ._surroundings import import_modules, selected_target

__all__ = ["add", "chosen"]

TEXT = """
Run the work of the target: starts the right worker, with the configured task modules imported.

SIGTERM and Ctrl-C stop it gracefully: no more work is taken, what runs is finished within --grace,
what remains goes back to the queue. A second one ends it faster.
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "worker", run, TEXT)
    option = parser.add_argument
    option("alias", metavar="ALIAS", nargs="?", help="the dispatcher whose work to run")
    option("--concurrency", metavar="N", type=whole, help="default: one per processor")
    option("--queues", metavar="a,b", type=_names, default=(), help="default: all")
    option("--grace", metavar="30s", type=seconds, default=30.0, help="to finish what runs")
    option("--drain", action="store_true", help="end when there is nothing left to do")
    option("--log-level", choices=LEVELS, default="info", help="default: info")
    option("--until-eof", action="store_true", help="stop when standard input is closed")


LEVELS = ("debug", "info", "warning", "error")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Work until told to stop."""
    _log(args.log_level)
    target = selected_target(args.target)
    import_modules()
    dispatcher, aliases = chosen(args.alias)
    options = WorkerOptions(
        concurrency=args.concurrency or processors(),
        queues=args.queues,
        modules=current().modules,
        grace=args.grace,
        drain=args.drain,
    )
    worker = dispatcher._worker(options)
    with stopped_by_signals(worker):
        shown.note(_introduction(dispatcher, aliases, options, target))
        if args.until_eof:
            _stop_at_eof(worker)
        return Exit.OK if worker.run() == 0 else Exit.PROBLEMS


def _log(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _introduction(
    dispatcher: BaseDispatcher, aliases: list[str], options: WorkerOptions, target: str | None
) -> str:
    names = ", ".join(map(repr, aliases))
    queues = ", ".join(options.queues) or "all queues"
    return (
        f"worker for {names} of target {target!r}: backend {dispatcher.name!r}, {queues}, "
        f"{options.concurrency} at once, tasks: {len(catalogue.all())}; "
        f"stop with Ctrl-C (grace {spoken(options.grace)})"
    )


# Whose work.


def chosen(alias: str | None) -> tuple[BaseDispatcher, list[str]]:
    """The dispatcher whose work is to be run, and the aliases that are served.

    Raises:
        ConfigurationError: It is not clear which, or there is none that needs a worker.
    """
    if alias is not None:
        return get_dispatcher(alias), [alias]
    found = dispatchers()
    able = {name: each for name, each in found.items() if each.capabilities.worker}
    if not able:
        raise ConfigurationError(_none(found))
    grouped = places(able)
    if len(grouped) > 1:
        raise ConfigurationError(_several(grouped, able))
    return able[grouped[0][0]], grouped[0]


def _none(found: Mapping[str, BaseDispatcher]) -> str:
    backends = ", ".join(f"{name!r} ({each.name})" for name, each in found.items())
    return f"no dispatcher of the target needs a worker: {backends} have their work done elsewhere"


def _several(grouped: list[list[str]], able: Mapping[str, BaseDispatcher]) -> str:
    options = "; ".join(
        f"dispatchers worker {names[0]}  ({', '.join(names)}: {able[names[0]].name})"
        for names in grouped
    )
    return f"the target has work in {len(grouped)} places, which each need a worker: {options}"


# When to stop.


@contextmanager
def stopped_by_signals(worker: Worker) -> Generator[None]:
    """Stop a worker at SIGTERM and SIGINT, where it does not see to that itself; twice ends it."""
    count = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal count
        del number, frame
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        worker.stop()

    mine = (signal.SIGTERM, signal.SIGINT) if _may_handle_signals() else ()
    before = {number: signal.signal(number, stop) for number in mine}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _may_handle_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop_at_eof(worker: Worker) -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        worker.stop()

    threading.Thread(target=wait, name="dispatchers-until-eof", daemon=True).start()
