"""A child process of a worker: imports the tasks, runs what it is sent, says what became of it.

It speaks over the pipes it was started with as standard input and output. It moves them away
first, so that what a handler prints goes to standard error, and what it reads is empty.
"""

from __future__ import annotations

import faulthandler
import importlib
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
from dispatchers._current import Run
from dispatchers._judgement import after_failure, unfit
from dispatchers._loops import TimeLimitError
from dispatchers._opening import Unfit, opened
from dispatchers._outcome import Action, Outcome, Reason
from dispatchers._run import RunSettings, run_envelope
from dispatchers._stores import run_settings
from dispatchers._verdict import type_name

from ._frames import ATTEMPT, NUMBER, SECONDS, Frame, Kind, Parser, frame

__all__ = ["main"]

log = logging.getLogger("dispatchers")

_CHUNK = 1 << 18


class Pipes:
    """The connection to the worker. Frames are sent whole, from any thread."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._parser = Parser()
        self._sending = threading.Lock()

    def send(self, kind: Kind, number: int = 0, payload: bytes = b"") -> None:
        """Send one frame; if the worker is gone, nobody needs it."""
        data = frame(kind, number, payload)
        with self._sending:
            try:
                while data:
                    data = data[os.write(self._outgoing, data) :]
            except BrokenPipeError:
                return

    def receive(self) -> list[Frame] | None:
        """Wait for frames; None when the worker is gone."""
        data = os.read(self._incoming, _CHUNK)
        return list(self._parser.feed(data)) if data else None


class Child:
    """Runs jobs one after the other on the main thread, while a second one listens.

    Args:
        pipes: To the worker.

        settings: Of the runs.

        patience: Seconds that a handler may go on after the worker is gone: less than the lease, so
            that nobody else runs its job meanwhile.
    """

    def __init__(self, pipes: Pipes, settings: RunSettings, patience: float) -> None:
        self._pipes = pipes
        self._settings = settings
        self._patience = patience
        self._jobs: SimpleQueue[Frame | None] = SimpleQueue()
        self._stop = False
        self._number = 0
        self._announced = True

    def run(self, received: Iterable[Frame]) -> None:
        """Serve until the worker closes the pipe.

        Args:
            received: What has come already.
        """
        hooks.before_run(self._announce)
        for each in received:
            self._heed(each)
        threading.Thread(target=self._listen, name="dispatchers-listen", daemon=True).start()
        self._pipes.send(Kind.READY)
        while (job := self._jobs.get()) is not None:
            self._serve(job)

    def _serve(self, job: Frame) -> None:
        kind, number, payload = job
        attempt, deliveries = ATTEMPT.unpack_from(payload)
        self._number, self._announced = number, False
        work = self._execute if kind == Kind.RUN else self._judge
        try:
            outcome = work(payload[ATTEMPT.size :], attempt, deliveries)
        except BaseException as exc:  # noqa: BLE001 - a task that exits must not end the process
            self._pipes.send(Kind.CRASHED, number, type_name(exc).encode())
        else:
            self._report(number, outcome)

    def _execute(self, body: bytes, attempt: int, deliveries: int) -> Outcome:
        return run_envelope(
            body,
            attempt=attempt,
            deliveries=deliveries,
            settings=self._settings,
            stopping=self._stopping,
        )

    def _judge(self, body: bytes, attempt: int, deliveries: int) -> Outcome:
        """What follows from a run that had to be killed at its time limit."""
        try:
            task, envelope = opened(body, deliveries, self._settings)
        except Unfit as exc:
            return unfit(exc)
        run = Run(task, envelope, body, attempt, deliveries, None)
        error = TimeLimitError("the run was killed at its time limit")
        return after_failure(run, error, self._settings)

    def _report(self, number: int, outcome: Outcome) -> None:
        if outcome.action is Action.DONE and outcome.reason is Reason.SUCCEEDED:
            self._pipes.send(Kind.DONE, number, SECONDS.pack(outcome.elapsed))
        else:
            self._pipes.send(Kind.OUTCOME, number, outcome.model_dump_json().encode())

    def _stopping(self) -> bool:
        return self._stop

    def _announce(self, run: Run) -> None:
        """Tell the worker of a time limit; not of one that a run inside the run has."""
        announced, self._announced = self._announced, True
        left = run.time_left
        if not announced and left is not None:
            self._pipes.send(Kind.LIMIT, self._number, SECONDS.pack(left))

    def _listen(self) -> None:
        while (frames := self._pipes.receive()) is not None:
            for received in frames:
                self._heed(received)
        self._orphaned()

    def _heed(self, received: Frame) -> None:
        if received[0] in (Kind.RUN, Kind.JUDGE):
            self._jobs.put(received)
            return
        self._stop = self._stop or received[0] == Kind.STOP
        numbers = b"".join(NUMBER.pack(number) for number in self._recalled())
        self._pipes.send(Kind.RECALLED, 0, numbers)

    def _recalled(self) -> list[int]:
        """Take the jobs that have not begun off the line."""
        numbers: list[int] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return numbers
            assert job is not None
            numbers.append(job[1])

    def _orphaned(self) -> None:
        """End with the worker; a handler that does not is ended, before its job can run again."""
        self._stop = True
        self._recalled()
        self._jobs.put(None)
        faulthandler.dump_traceback_later(self._patience, exit=True, file=sys.__stderr__ or 2)


def main() -> None:
    """Be a child process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker's business, also in a shared group
        signal.signal(number, signal.SIG_IGN)
    pipes = _moved_pipes()
    frames: list[Frame] = []
    while not frames:
        if (received := pipes.receive()) is None:
            return
        frames += received
    setup = json.loads(frames[0][2])
    try:
        settings = _prepared(setup)
    except BaseException as exc:
        log.exception("the task modules could not be imported")
        pipes.send(Kind.BROKEN, 0, f"{type_name(exc)}: {exc}".encode(errors="replace"))
        return
    Child(pipes, settings, setup["patience"]).run(frames[1:])


def _moved_pipes() -> Pipes:
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(nothing, 1)
    os.close(nothing)
    return Pipes(incoming, outgoing)


def _prepared(setup: dict[str, Any]) -> RunSettings:
    """Make this process like its worker, import the tasks, and open the stores of the runs."""
    from dispatchers.backends.sqlite import SQLiteOptions

    sys.path[:] = setup["path"]
    if setup["log_level"] is not None:
        logging.basicConfig(level=setup["log_level"], format=setup["log_format"])
    for module in setup["modules"]:
        importlib.import_module(module)
    return run_settings(SQLiteOptions.model_validate_json(setup["options"]))


if __name__ == "__main__":
    main()
