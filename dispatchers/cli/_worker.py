"""`dispatchers worker`: run the work of the selected target."""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dispatchers._config.api import current, get_dispatcher
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
from dispatchers._errors import ConfigurationError
from dispatchers._models.stats import Stats
from dispatchers._runtime.log import say
from dispatchers._runtime.log_format import JSON, log_to_stderr
from dispatchers._runtime.platform import lacks_posix
from dispatchers._tasks.task import catalogue
from dispatchers._worker.relays import Relays, forwarders_of, holding
from dispatchers._worker.signals import stopped_by_signals

from ._arguments import add_command, whole
from ._durations import seconds, spoken
from ._exit import Exit
from ._health import Health
from ._places import dispatchers, places
from ._screen import Screen
from ._surroundings import import_modules, selected_target

__all__ = ["add", "chosen", "needs_posix", "no_tasks"]

PROGRESS_INTERVAL = 2.0
"""Seconds between two words on how much is left to drain."""

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
    option("--log-format", choices=("text", JSON), default="text", help="default: text")
    option("--no-relay", action="store_true", help="hand over nothing that is held in stores")
    option("--until-eof", action="store_true", help="stop when standard input is closed")
    _add_health(parser)


def _add_health(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("signs of life, for supervisors")
    option = group.add_argument
    option("--health-file", metavar="PATH", type=Path, help="written every 5 s while it is well")
    option(
        "--health-port", metavar="[HOST:]PORT", type=_address, help="answers 200 while it is well"
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and 0 < int(port) < 65536):  # noqa: PLR2004 - the last port and one
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: write 8080 or 127.0.0.1:8080")
    return host.strip("[]"), int(port)


LEVELS = ("debug", "info", "warning", "error")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Work until told to stop."""
    # Before the modules are imported, so that what they log is seen.
    log_to_stderr(args.log_level.upper(), JSON if args.log_format == JSON else None)
    # A target that cannot be selected is refused before any task module is imported.
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
    # Before the worker is made: its own error would not name the systems that work.
    _refuse_system(dispatcher)
    worker = dispatcher._worker(options)
    _refuse_idle(dispatcher, shown)
    health = Health(_own_word(worker), file=args.health_file, address=args.health_port)

    def stop() -> None:
        # Supervisors must not restart a worker that is finishing its work.
        health.stopping = True
        worker.stop()

    tell = _tell_as_json if args.log_format == JSON else shown.note
    _begin_sweeping(dispatcher)
    relaying = nullcontext() if args.no_relay else _relaying(options)
    with stopped_by_signals(stop), health.shown(), _progress(dispatcher, options, tell), relaying:
        tell(_introduction(dispatcher, aliases, options, target))
        if args.alias is None:
            _tell_of_others(tell)
        if args.until_eof:
            _stop_at_eof(stop)
        return Exit.OK if worker.run() == 0 else Exit.PROBLEMS


@contextmanager
def _relaying(options: WorkerOptions) -> Generator[None]:
    """Hand over what the dispatchers of the target hold in stores while the block runs."""
    relays = Relays(forwarders_of(holding().values()))
    relays.start()
    try:
        yield
    finally:
        relays.stop()
        relays.join(options.grace)


def _begin_sweeping(dispatcher: BaseDispatcher) -> None:
    if any(task.is_workflow for task in catalogue.all()):
        # Late: most workers have no workflows, whose engine is then not imported.
        from dispatchers.workflows._sweep import sweep_in_worker

        sweep_in_worker(dispatcher)


def _own_word(worker: Worker) -> Callable[[], bool]:
    """Return a worker's health check; without one it counts as well."""
    found: Callable[[], bool] | None = getattr(worker, "healthy", None)
    return (lambda: True) if found is None else found


def _refuse_system(dispatcher: BaseDispatcher) -> None:
    if dispatcher.posix_worker and (lack := lacks_posix()) is not None:
        raise ConfigurationError(needs_posix(dispatcher, lack))


def needs_posix(dispatcher: BaseDispatcher, lack: str) -> str:
    """Describe why a dispatcher's worker cannot run on this system."""
    return (
        f"the worker of {dispatcher.alias!r} ({dispatcher.name}) needs a POSIX system, and {lack}: "
        "run it on Linux, macOS or WSL; dispatching works here"
    )


def _refuse_idle(dispatcher: BaseDispatcher, shown: Screen) -> None:
    """Refuse a worker that has no tasks to run.

    A broker's own worker may have native tasks, or import modules by itself: it is warned only.
    """
    if any(task.implemented for task in catalogue.all()):
        return
    words = no_tasks()
    # Without a library the worker is ours, and runs registered tasks only.
    if dispatcher.library is None:
        raise ConfigurationError(words)
    shown.problem(f"warning: {words}")


def no_tasks() -> str:
    """Describe a worker without tasks, and the cure."""
    modules = ", ".join(current().modules)
    why = f"the modules {modules} define no tasks" if modules else "no task modules are configured"
    return (
        f"{why}: a worker could run nothing and would hand everything back; "
        'name the modules that define tasks, tasks = ["shop.tasks"]'
    )


def processors() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        # A container or `taskset` may allow fewer than the machine has.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _tell_as_json(text: str) -> None:
    say(logging.INFO, text)


@contextmanager
def _progress(
    dispatcher: BaseDispatcher, options: WorkerOptions, tell: Callable[[str], None]
) -> Generator[None]:
    """Report what is left to drain now and then."""
    if not (options.drain and dispatcher.capabilities.stats):
        yield
        return
    over = threading.Event()

    def look() -> None:
        while not over.wait(PROGRESS_INTERVAL):
            if found := dispatcher.stats():  # where there are none, its log says why
                tell(_left(found, options.queues))

    thread = threading.Thread(target=look, name="dispatchers-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # Joined as well: a last figure must not appear after the worker's own last words.
        over.set()
        thread.join()


def _left(found: Sequence[Stats], queues: Sequence[str]) -> str:
    served = [each for each in found if not queues or each.queue in queues]
    counts = (
        (name, sum(getattr(each, name) or 0 for each in served))
        for name in ("waiting", "running", "delayed")
    )
    return f"left to do: {', '.join(f'{number} {name}' for name, number in counts)}"


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
    """Return the dispatcher to serve, and its aliases.

    Raises:
        ConfigurationError: It is not clear which, or there is none that needs a worker.
    """
    if alias is not None:
        return get_dispatcher(alias), [alias]
    found = dispatchers()
    able = {name: each for name, each in found.items() if each.capabilities.worker}
    if not able:
        raise ConfigurationError(_none(found))
    # The worker of a dispatcher that stands on others runs their work too.
    under = {name for each in able.values() for name in each.stands_on(each.options)}
    able = {name: each for name, each in able.items() if name not in under} or able
    grouped = places(able)
    if len(grouped) > 1:
        raise ConfigurationError(_several(grouped, able))
    return able[grouped[0][0]], grouped[0]


def _tell_of_others(tell: Callable[[str], None]) -> None:
    for alias, each in dispatchers().items():
        if _elsewhere(each):
            tell(f"not here: {_story(alias, each)}")


def _elsewhere(dispatcher: BaseDispatcher) -> bool:
    """Tell whether the work is run by a program that is not started here."""
    return not dispatcher.capabilities.worker and dispatcher.run_by is not None


def _none(found: Mapping[str, BaseDispatcher]) -> str:
    words = ", ".join(_story(*each) for each in found.items())
    needed = "can be started here" if any(map(_elsewhere, found.values())) else "is needed"
    return f"no worker {needed}: {words}"


def _story(alias: str, dispatcher: BaseDispatcher) -> str:
    return f"{alias!r} ({dispatcher.name}) {_runs(dispatcher)}"


def _runs(dispatcher: BaseDispatcher) -> str:
    can = dispatcher.capabilities
    if dispatcher.run_by is not None:
        return f"is run by {dispatcher.run_by}"
    if can.runs_here or (can.confirmed and not can.durable):
        return "runs tasks in the dispatching process"
    return "has no worker of its own"


def _several(grouped: list[list[str]], able: Mapping[str, BaseDispatcher]) -> str:
    options = "; ".join(
        f"dispatchers worker {names[0]}  ({', '.join(names)}: {able[names[0]].name})"
        for names in grouped
    )
    return f"the target has work in {len(grouped)} places, which each need a worker: {options}"


# When to stop.


def _stop_at_eof(stop: Callable[[], None]) -> None:
    def wait() -> None:
        # The descriptor itself: Python's own stdin object would take a lock that exit waits for.
        while os.read(0, 4096):
            pass
        stop()

    threading.Thread(target=wait, name="dispatchers-until-eof", daemon=True).start()
