"""Stopping a worker from a signal handler."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from dispatchers.delivery import StopFlag, stopped_by_signals

STORM = """
import os, signal, sys, threading
from dispatchers.delivery import StopFlag

flags = [StopFlag() for _ in range(4000)]
waiting = iter(flags)
current = next(waiting)
signal.signal(signal.SIGUSR1, lambda *_: current.set())
sender = threading.Thread(
    target=lambda: [os.kill(os.getpid(), signal.SIGUSR1) for _ in range(40_000)], daemon=True
)
sender.start()
for current in waiting:
    current.wait(0.0001)
sender.join()
print("over")
"""


def test_thousands_of_signals_do_not_block_a_flag():
    """A flag that a handler sets while the same thread waits for it never deadlocks."""
    done = subprocess.run(
        [sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "over\n"


LATE_HANDLER = """
import signal, time
from dispatchers.delivery import StopFlag

signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.02))
signal.setitimer(signal.ITIMER_REAL, 0.005)
print(StopFlag().wait(0.01))
"""


def test_a_handler_that_outlasts_a_wait_does_not_prolong_it():
    """Whatever other signals a process has handlers for: the wait ends."""
    done = subprocess.run(
        [sys.executable, "-c", LATE_HANDLER], capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "False\n", done.stderr


def test_every_thread_that_waits_is_woken():
    """One `set` wakes them all."""
    flag = StopFlag()
    threads = [threading.Thread(target=flag.wait, args=[60.0]) for _ in range(5)]
    for thread in threads:
        thread.start()

    flag.set()
    for thread in threads:
        thread.join(10)

    assert not any(thread.is_alive() for thread in threads)
    assert flag.wait(60.0)


def test_a_flag_that_nobody_sets_is_waited_for_no_longer_than_said():
    """False after the time."""
    assert not StopFlag().wait(0.001)


@pytest.mark.parametrize(
    ("numbers", "ends"),
    [
        ((signal.SIGTERM,), False),
        ((signal.SIGTERM, signal.SIGTERM), True),
        ((signal.SIGINT, signal.SIGINT), False),
        ((signal.SIGINT, signal.SIGTERM), False),
    ],
)
def test_a_second_signal_ends_at_once_unless_it_is_the_first_once_more(numbers, ends):
    """A terminal signals all processes of a group, and a wrapper passes its own on."""
    stops: list[int] = []

    def send() -> None:
        with stopped_by_signals(lambda: stops.append(1)):
            for number in numbers:
                os.kill(os.getpid(), number)

    if ends:
        with pytest.raises(KeyboardInterrupt):
            send()
    else:
        send()
        assert len(stops) == len(numbers)


def test_a_block_within_another_tells_both():
    """A worker with handlers of its own does not hide the signal from the command around it."""
    stops: list[str] = []

    with stopped_by_signals(lambda: stops.append("command")):
        with stopped_by_signals(lambda: stops.append("worker")):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    assert stops == ["worker", "command", "command"]


def test_handlers_are_put_back():
    """What the program had is in place again after the block."""
    before = signal.getsignal(signal.SIGTERM)

    with stopped_by_signals(lambda: None):
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before


FORKED = """
import os, signal, sys, time
from dispatchers.delivery import StopFlag, ignore_signals, stopped_by_signals

flag, number = StopFlag(), int(sys.argv[2])
if sys.argv[1] == "ignored":
    ignore_signals()
    os.kill(os.getpid(), number)  # does nothing here
with stopped_by_signals(flag.set) if sys.argv[1] == "stopped" else open(os.devnull):
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(write, b"x")
            # A signal that comes just before a sleep does not end it; Python sees it after.
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            os._exit(100)
    os.read(read, 1)
    os.kill(child, number)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flag.is_set())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
@pytest.mark.parametrize("how", ["stopped", "ignored"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, 100)])
def test_what_a_handler_forks_ends_by_signals_as_a_plain_program(how, number, code):
    """A fork inherits a worker's signal handlers; signals do to it what they do by default."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED, how, str(int(number))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == f"{code} False\n"


AT_ONCE = """
import os, signal, time
from dispatchers.delivery import ignore_signals

ignore_signals()
codes = set()
for _ in range(50):
    if not (child := os.fork()):
        time.sleep(20)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(*codes, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


WORKER_IN_A_FORK = """
import os, signal
from dispatchers.delivery import stopped_by_signals

told = []
with stopped_by_signals(lambda: told.append("parent")):
    if not (child := os.fork()):
        with stopped_by_signals(lambda: told.append("child")):
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(told != ["child"])
    status = os.waitpid(child, 0)[1]
    os.kill(os.getpid(), signal.SIGTERM)
print(os.waitstatus_to_exitcode(status), told)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_worker_in_a_fork_stops_itself_alone():
    """What its parent would stop, other workers say, is not told by the fork."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER_IN_A_FORK], capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "0 ['parent']\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_signal_at_the_moment_of_a_fork_ends_what_was_forked():
    """It may come before the fork's first line: a pool that ends at once signals so early."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "-15 set()\n"


POOLS = """
import multiprocessing, signal
from dispatchers.delivery import ignore_signals

ignore_signals()
for _ in range(40):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, [-1, -2])
print(signal.getsignal(signal.SIGTERM).__module__)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_pools_end_at_once(tmp_path):
    """Their processes wait in C, where a handler in Python would not be called in time."""
    with (tmp_path / "said").open("w+") as said:  # what hangs would keep a pipe open
        process = subprocess.Popen([sys.executable, "-c", POOLS], stdout=said, process_group=0)
        try:
            assert process.wait(60) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)

        assert said.read() == "dispatchers._worker.signals\n"
