"""Programs that fork, each in a process of its own; they import this file, too."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

GLANCE = 0.02
"""Seconds for which the other threads are watched."""

BEGIN = f"""
    import os, sys, threading, time, importlib.abc, importlib.util
    import dispatchers

    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from forking import fork_in_c

    begun = threading.Event()

    def forked_during(slow, then):
        thread = threading.Thread(target=slow)
        thread.start()
        begun.wait()
        child = os.fork()
        if child == 0:
            then()
            os._exit(7)
        print(exit_code_of(child))

    def exit_code_of(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def ran(script: str, *arguments: object) -> str:
    """What a program prints."""
    program = textwrap.dedent(BEGIN) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def fork_in_c() -> int:
    """Fork as a server that is written in C does: without Python's hooks.

    A child has a copy of the interpreter's lock. If another thread was waiting for it in the
    parent, the child hands the lock to that thread, which it does not have, and stands still for
    ever; servers in C renew the lock in their children. So no other thread may run meanwhile.
    """
    while sys.platform == "linux" and not _others_rest():
        pass
    return ctypes.PyDLL(None).fork()


def _others_rest() -> bool:
    before = _others()
    time.sleep(GLANCE)
    after = _others()
    return after == before and all("S (sleeping)" in each for each in after.values())


def _others() -> dict[str, tuple[str, ...]]:
    """The state and the numbers of switches of each thread but this one."""
    threads = {each.name: each for each in Path("/proc/self/task").iterdir()}
    del threads[str(threading.get_native_id())]
    return {name: _told(folder) for name, folder in threads.items()}


def _told(thread: Path) -> tuple[str, ...]:
    try:
        lines = (thread / "status").read_text().splitlines()
    except OSError:
        return ("ended meanwhile",)
    told = dict(line.split(":\t", 1) for line in lines)
    return told["State"], told["voluntary_ctxt_switches"], told["nonvoluntary_ctxt_switches"]
