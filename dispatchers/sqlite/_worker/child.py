"""A child process of a worker: imports the tasks, runs what it is sent, reports the outcomes.

It speaks over the pipes it was started with as standard input and output. It moves them away
first, so that what a handler prints goes to the worker's own standard output, line by line, and
what it reads is empty. What a handler forks has neither the pipes nor the signal handlers of this
process.
"""

from __future__ import annotations

import atexit
import faulthandler
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Any

from dispatchers import hooks
from dispatchers._dispatch.error_mapping import type_name
from dispatchers._journal.loading import as_seen_by_run
from dispatchers._models.outcome import Action, Outcome, Reason
from dispatchers._runtime.importing import imported
from dispatchers._runtime.log import say
from dispatchers._runtime.log_format import log_to_stderr
from dispatchers._worker.forked import flush_output
from dispatchers._worker.run import Run
from dispatchers._worker.runner import RunSettings, killed, run_envelope
from dispatchers._worker.settings import run_settings
from dispatchers._worker.signals import ignore_signals
from dispatchers.sqlite._effects import collecting
from dispatchers.sqlite._settled_journal import seen_by_runs
from dispatchers.sqlite._worker.ipc import ATTEMPT, NUMBER, SECONDS, Frame, Kind, Parser, frame

__all__ = ["main"]


READ_SIZE = 1 << 18


class Pipes:
    """The connection to the worker. Frames are sent whole, from any thread."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._parser = Parser()
        # A run's hook and the listening thread both send; frames must not be interleaved.
        self._sending = threading.Lock()

    def send(self, data: bytes) -> None:
        """Send whole frames; a worker that is gone needs none."""
        with self._sending:
            try:
                while data:
                    data = data[os.write(self._outgoing, data) :]
            except BrokenPipeError:
                return

    def close(self) -> None:
        """Close both ends: a process that a handler has forked does not speak for this one."""
        os.close(self._incoming)
        os.close(self._outgoing)

    def receive(self) -> list[Frame] | None:
        """Return the next frames; None when the worker is gone."""
        data = os.read(self._incoming, READ_SIZE)
        return list(self._parser.feed(data)) if data else None


class Child:
    """Runs jobs one after the other on the main thread, while a second one listens.

    Args:
        pipes: To the worker.

        settings: Of the runs.

        path: The worker's file, into which it records the effects of runs.

        grace: Seconds that a handler may go on after the worker is gone: less than the lease, so
            that no other worker runs its job meanwhile.
    """

    def __init__(self, pipes: Pipes, settings: RunSettings, path: str, grace: float) -> None:
        self._pipes = pipes
        self._settings = settings
        self._path = path
        self._grace = grace
        self._dismissed = False
        self._jobs: SimpleQueue[Frame | None] = SimpleQueue()
        self._stop = False
        self._number = 0
        self._announced = True

    def run(self, received: Iterable[Frame]) -> None:
        """Serve until the worker closes the pipe.

        Args:
            received: What has come already.
        """
        as_seen_by_run.set(seen_by_runs)
        # Through a hook, because only a run knows its time limit once the envelope is decoded.
        hooks.before_run(self._announce)
        for each in received:
            self._handle(each)
        # Handlers run on the main thread, where signal handlers and most libraries expect to be.
        threading.Thread(target=self._listen, name="dispatchers-listen", daemon=True).start()
        self._pipes.send(frame(Kind.READY))
        while (job := self._jobs.get()) is not None:
            self._serve(job)

    def _serve(self, job: Frame) -> None:
        kind, number, payload = job
        attempt, deliveries = ATTEMPT.unpack_from(payload)
        self._number, self._announced = number, False
        work = self._execute if kind == Kind.RUN else self._classify
        try:
            with collecting(self._path) as collector:
                outcome = work(payload[ATTEMPT.size :], attempt, deliveries)
        except BaseException as exc:  # noqa: BLE001 - a task that exits must not end the process
            # Before the outcome: once it is sent, the worker may end this process.
            flush_output()
            self._pipes.send(frame(Kind.CRASHED, number, type_name(exc).encode()))
        else:
            flush_output()
            effects = collector.packed()
            told = frame(Kind.EFFECTS, number, effects) if effects else b""
            told += frame(Kind.PUTS) if collector.puts else b""
            # In one piece: the worker, woken by the first, would only wait for the second.
            self._pipes.send(told + _end_of(number, outcome))

    def _execute(self, body: bytes, attempt: int, deliveries: int) -> Outcome:
        return run_envelope(
            body,
            attempt=attempt,
            deliveries=deliveries,
            settings=self._settings,
            stopping=self._stopping,
        )

    def _classify(self, body: bytes, attempt: int, deliveries: int) -> Outcome:
        """Return the outcome of a run that had to be killed at its time limit."""
        return killed(body, attempt=attempt, deliveries=deliveries, settings=self._settings)

    def _stopping(self) -> bool:
        return self._stop

    def _announce(self, run: Run) -> None:
        """Tell the worker of a time limit; not of one that a run inside the run has."""
        announced, self._announced = self._announced, True
        left = run.time_left
        if not announced and left is not None:
            self._pipes.send(frame(Kind.LIMIT, self._number, SECONDS.pack(left)))

    def _listen(self) -> None:
        while (frames := self._pipes.receive()) is not None:
            for received in frames:
                self._handle(received)
        self._end()

    def _handle(self, received: Frame) -> None:
        if received[0] in (Kind.RUN, Kind.CLASSIFY):
            self._jobs.put(received)
            return
        if received[0] == Kind.FLUSH:
            flush_output()
            return
        if received[0] == Kind.DISMISS:
            self._dismissed = True
            return
        self._stop = self._stop or received[0] == Kind.STOP
        numbers = b"".join(NUMBER.pack(number) for number in self._recalled())
        self._pipes.send(frame(Kind.RECALLED, 0, numbers))

    def _recalled(self) -> list[int]:
        """Take the jobs that have not begun off the queue."""
        numbers: list[int] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return numbers
            assert job is not None
            numbers.append(job[1])

    def _end(self) -> None:
        """End with the worker; a handler that does not is ended, before its job can run again.

        The thread ends what the handler has started as well. Where a handler keeps the
        interpreter to itself, the other clock, which needs none, ends this process alone.
        """
        self._stop = True
        self._recalled()
        if not self._dismissed:
            atexit.register(_end_group)
        self._jobs.put(None)
        ending = threading.Timer(self._grace, _end_group)
        ending.daemon = True
        ending.start()
        limit = self._grace + 1.0
        faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__ or 2)


def _end_of(number: int, outcome: Outcome) -> bytes:
    """Return the frame that tells the end of a run."""
    if outcome.action is Action.DONE and outcome.reason is Reason.SUCCEEDED:
        return frame(Kind.DONE, number, SECONDS.pack(outcome.elapsed))
    return frame(Kind.OUTCOME, number, outcome.model_dump_json().encode())


def _end_group() -> None:
    """End this process and all that its handlers have left in its process group."""
    flush_output()
    # Only a group of its own: otherwise this would end the program that started it.
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)


def main(output: int) -> None:
    """Be a child process.

    Args:
        output: The descriptor of the worker's own standard output.
    """
    ignore_signals()
    pipes = _moved_pipes(output)
    # A forked process that kept the pipe open would hide this one's end from the worker.
    os.register_at_fork(after_in_child=pipes.close)
    frames: list[Frame] = []
    while not frames:
        if (received := pipes.receive()) is None:
            return
        frames += received
    setup = json.loads(frames[0][2])
    try:
        settings, path = _prepared(setup)
    except BaseException as exc:  # noqa: BLE001 - a module may call sys.exit()
        say(logging.ERROR, "the task modules could not be imported", exc_info=exc)
        pipes.send(frame(Kind.BROKEN, 0, f"{type_name(exc)}: {exc}".encode(errors="replace")))
        return
    Child(pipes, settings, path, setup["grace"]).run(frames[1:])


def _moved_pipes(output: int) -> Pipes:
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    # Handlers that read standard input would otherwise take the worker's frames.
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.close(nothing)
    os.close(output)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whole lines, at once, though it is no terminal
            stream.reconfigure(line_buffering=True)
    return Pipes(incoming, outgoing)


def _prepared(setup: dict[str, Any]) -> tuple[RunSettings, str]:
    """Make this process like its worker, import the tasks, and open the stores of the runs."""
    from dispatchers.sqlite._options import SQLiteOptions, open_store

    sys.path[:] = setup["path"]
    if setup["log_level"] is not None:
        log_to_stderr(setup["log_level"], setup["log_format"])
    # Hooks first: they may set up what the task modules use when they are imported.
    for module in (*setup["hooks"], *setup["modules"]):
        imported(module)
    options = SQLiteOptions.model_validate_json(setup["options"])
    return run_settings(options), open_store(options).path
