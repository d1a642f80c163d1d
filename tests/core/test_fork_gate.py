"""A fork waits until no thread is inside a gate, within a bound."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dispatchers import RejectedError
from dispatchers.net import ForkGate

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="it cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def exit_code(child: Callable[[], Any]) -> int:
    """Return the exit code of a forked child: 0 is true."""
    pid = os.fork()
    if not pid:
        os._exit(0 if child() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_waits_for_the_thread_that_is_inside():
    """C8: a child never inherits a lock that a thread held inside the gate."""
    gate = ForkGate(max_wait=30)
    lock = threading.Lock()
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with gate.entered(), lock:
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(30)
    threading.Timer(0.05, leave.set).start()
    code = exit_code(lambda: lock.acquire(blocking=False))
    thread.join()

    assert code == 0


def test_a_thread_is_inside_once_and_others_beside_it():
    """C8: a signal handler within the block is refused, and another thread is not."""
    gate = ForkGate()

    def enter() -> str:
        with gate.entered_once():
            return "inside"

    with gate.entered_once(), ThreadPoolExecutor(1) as pool:
        other = pool.submit(enter).result()
        with pytest.raises(RejectedError, match="signal handler"):
            enter()
    after = enter()

    assert (other, after) == ("inside", "inside")


def test_a_fork_does_not_wait_for_ever():
    """C8: a thread that never leaves costs a fork `max_wait`, and child and parent go on."""
    gate = ForkGate(max_wait=0.05)
    leave = threading.Event()

    def work() -> None:
        with gate.entered():
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()

    def child() -> bool:
        with gate.entered():
            return True

    code = exit_code(child)
    leave.set()
    thread.join()
    with gate.entered():
        pass

    assert code == 0


def test_a_guarded_lock_is_free_in_the_child():
    """C8: a client's own lock is held during the fork, so that no thread has it meanwhile."""
    gate = ForkGate(max_wait=30)
    lock = threading.RLock()
    gate.guard(lock)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock:
                pass

    thread = threading.Thread(target=work)
    thread.start()
    codes = [exit_code(lambda: lock.acquire(timeout=5)) for _ in range(20)]
    stop.set()
    thread.join()

    assert codes == [0] * 20


def test_threads_that_fork_at_once_do_not_wait_for_each_other():
    """C8: each fork opens the gates that it has closed, whatever other threads do meanwhile."""
    gates = [ForkGate(max_wait=30) for _ in range(3)]
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for gate in gates:
                with gate.entered():  # so that forks wait, and other threads have their turn
                    stop.wait(0.001)

    def fork() -> None:
        codes.extend(exit_code(lambda: True) for _ in range(20))

    codes: list[int] = []
    inside = threading.Thread(target=work, daemon=True)
    forking = [threading.Thread(target=fork, daemon=True) for _ in range(4)]
    for thread in [inside, *forking]:
        thread.start()
    for thread in forking:
        thread.join(60)
    stop.set()

    assert codes == [0] * 80
