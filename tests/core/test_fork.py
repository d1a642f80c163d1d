"""A fork while another thread is in the midst of what everybody does once."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")
BEGIN = """
    import os, sys, threading, time, importlib.abc, importlib.util
    import dispatchers

    begun = threading.Event()

    def forked_during(slow, then):
        thread = threading.Thread(target=slow)
        thread.start()
        begun.wait()
        child = os.fork()
        if child == 0:
            then()
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def ran(script: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(BEGIN) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


def test_a_child_forked_during_an_import_works() -> None:
    """C8: a child does not wait for the lock of a module that another thread was importing."""
    script = """
        class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "dispatchers_slow":
                    return importlib.util.spec_from_loader(name, self)

            def exec_module(self, module):
                begun.set()
                time.sleep(0.5)

        sys.meta_path.insert(0, Slow())
        forked_during(*[lambda: __import__("dispatchers_slow")] * 2)
    """

    assert ran(script) == "7\n"


def test_a_child_forked_while_a_model_is_built_works() -> None:
    """C8: pydantic builds models when they are first used, one at a time in a process."""
    script = """
        from pydantic import BaseModel, ConfigDict

        class Slow:
            @classmethod
            def __get_pydantic_core_schema__(cls, source, handler):
                begun.set()
                time.sleep(0.5)
                return handler(int)

        class Late(BaseModel):
            model_config = ConfigDict(defer_build=True)
            x: Slow

        class Other(BaseModel):
            model_config = ConfigDict(defer_build=True)
            x: int

        def dispatch():
            Other(x=1)
            assert work.dispatch().ok

        @dispatchers.task
        def work() -> None: ...

        forked_during(lambda: Late(x=1), dispatch)
    """

    assert ran(script) == "7\n"


def test_what_a_fork_prepares_is_done_by_threads_alone() -> None:
    """A process of one thread forks without ado: nobody can be in the midst of anything."""
    script = """
        from dispatchers import _fork

        done = []
        _fork.before_fork(lambda: done.append(1))
        forked_during(begun.set, lambda: None)
        while threading.active_count() > 1:
            time.sleep(0.01)
        done.clear()
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        print(done)
    """

    assert ran(script) == "7\n[]\n"
