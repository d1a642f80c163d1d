"""`thread`: forks and the end of the interpreter."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PRELUDE = """
import os, sys, threading, time, warnings
from datetime import timedelta
from dispatchers import task, current_run, Backoff
from dispatchers.backends.thread import ThreadDispatcher
import logging
logging.basicConfig(format="%(levelname)s %(message)s")
warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)

def say(text):
    os.write(1, f"{text}\\n".encode())

@task
def note(x: int) -> None:
    say(f"{os.getpid() == parent} {x}")

gate = threading.Event()
arrived = threading.Event()

@task
def block() -> None:
    arrived.set()
    gate.wait(30)

parent = os.getpid()

def in_child(function):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_forked_child_begins_with_nothing(python):
    """C8: what waits in the parent is run by the parent, once; the child has a queue of its own."""
    result = python(
        PRELUDE
        + """
dispatcher = ThreadDispatcher(workers=1)
block.options(dispatcher=dispatcher).dispatch()
arrived.wait(30)
for x in range(3):
    note.options(dispatcher=dispatcher).dispatch(x)

def child():
    response = note.options(dispatcher=dispatcher).dispatch(10)
    assert response.status == "accepted"
    assert dispatcher.close(30) == 0

assert in_child(child) == 0
gate.set()
assert dispatcher.close(30) == 0
"""
    )

    assert result.stderr == ""
    assert result.stdout.splitlines() == ["False 10", "True 0", "True 1", "True 2"]


def test_a_fork_while_the_lock_is_held(python):
    """C8: a lock that another thread held when the process forked does not lock the child."""
    result = python(
        PRELUDE
        + """
dispatcher = ThreadDispatcher(workers=1)
held, done = threading.Event(), threading.Event()

def hold():
    with dispatcher._pool._lock:
        held.set()
        done.wait(30)

threading.Thread(target=hold).start()
held.wait(30)

def child():
    note.options(dispatcher=dispatcher).dispatch(1)
    assert dispatcher.close(30) == 0

code = in_child(child)
done.set()
sys.exit(code)
"""
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "False 1\n"


def test_a_handler_may_fork(python):
    """C8: a child that returns from the handler takes none of the parent's work with it."""
    result = python(
        PRELUDE
        + """
@task
def fork() -> None:
    arrived.set()
    gate.wait(30)
    if pid := os.fork():
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

dispatcher = ThreadDispatcher(workers=1)
fork.options(dispatcher=dispatcher).dispatch()
arrived.wait(30)
for x in range(3):
    note.options(dispatcher=dispatcher).dispatch(x)
gate.set()
assert dispatcher.close(30) == 0
"""
    )

    assert result.returncode == 0
    assert result.stdout.splitlines() == ["0", "True 0", "True 1", "True 2"]


def test_a_child_of_multiprocessing_finishes_its_work(python):
    """C8: a child of a preloading server drains when it ends, as its parent does."""
    result = python(
        PRELUDE
        + """
import multiprocessing
dispatcher = ThreadDispatcher(workers=1)
note.options(dispatcher=dispatcher).dispatch(0)

def child():
    block.options(dispatcher=dispatcher).dispatch()
    note.options(dispatcher=dispatcher).dispatch(1)
    threading.Timer(0.1, gate.set).start()

while dispatcher._pool._keys:
    time.sleep(0.001)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(30)
sys.exit(process.exitcode)
"""
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["True 0", "False 1"]


def test_work_is_finished_at_exit(python):
    """C8: what is due runs before the interpreter ends; what is not is counted in one record."""
    result = python(
        PRELUDE
        + """
dispatcher = ThreadDispatcher(workers=1)
block.options(dispatcher=dispatcher).dispatch()
for x in range(3):
    note.options(dispatcher=dispatcher).dispatch(x)
for x in range(2):
    note.options(dispatcher=dispatcher, delay=timedelta(hours=1)).dispatch(x)
threading.Timer(0.1, gate.set).start()
"""
    )

    assert result.returncode == 0
    assert result.stdout.splitlines() == ["True 0", "True 1", "True 2"]
    assert result.stderr == "ERROR 'thread' (thread) ended with the process, with 2 undone\n"


def test_a_configured_dispatcher_is_reported_once(python):
    """C8: the exit of a process is one event and one record, also for what settings built."""
    result = python(
        PRELUDE
        + """
import dispatchers
dispatchers.configure(
    {"targets": {"x": {"default": {"backend": "thread"}}}}, target="x"
)
note.dispatch(1)
note.options(delay=timedelta(hours=1)).dispatch(2)
"""
    )

    assert result.returncode == 0
    assert result.stdout == "True 1\n"
    assert result.stderr == "ERROR 'default' (thread) ended with the process, with 1 undone\n"


def test_what_runs_at_exit_is_not_cut(python):
    """C8: a handler beyond the exit's time runs to its end; what waits behind it is counted."""
    result = python(
        """import os
os.environ["DISPATCHERS_EXIT_TIMEOUT"] = "0.1"
"""
        + PRELUDE
        + """
import dispatchers
table = {"backend": "thread", "workers": 1}
dispatchers.configure({"targets": {"x": {"default": table}}}, target="x")

@task
def long() -> None:
    arrived.set()
    while not current_run().should_stop:
        time.sleep(0.001)
    time.sleep(0.5)
    say("long")

long.dispatch()
note.dispatch(1)
arrived.wait(30)
"""
    )

    assert result.returncode == 0
    assert result.stdout == "long\n"
    assert result.stderr == "ERROR 'default' (thread) ended with the process, with 2 undone\n"


def test_dispatch_at_the_very_end_is_answered(python):
    """C1: exit functions and threads that outlive the main one get a true answer; nothing hangs.

    Python 3.12 starts no threads at that time, the versions before and after it do.
    """
    result = python(
        PRELUDE
        + """
import atexit
dispatcher = ThreadDispatcher()
other = ThreadDispatcher(alias="other")
note.options(dispatcher=dispatcher).dispatch(0)

def late():
    response = note.options(dispatcher=dispatcher).dispatch(1)
    say(f"exit function: {response.status} {response.error.category}")

def later():
    threading.main_thread().join()
    time.sleep(0.2)
    response = note.options(dispatcher=other).dispatch(2)
    say(f"thread: {response.status}")

atexit.register(late)
threading.Thread(target=later).start()
logging.disable()
"""
    )

    first, *late, last = result.stdout.splitlines()
    assert result.returncode == 0
    assert (first, last) == ("True 0", "exit function: rejected closed")
    assert sorted(late) in (["True 2", "thread: accepted"], ["thread: rejected"])
