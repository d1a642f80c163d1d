"""A fork while another thread imports one of our modules."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")


def test_a_child_forked_during_an_import_of_ours_works() -> None:
    """C8: a child does not wait for the lock of a module that another thread was importing."""
    script = """
        import os, sys, threading, time, importlib.abc, importlib.util
        import dispatchers

        class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "dispatchers_slow":
                    return importlib.util.spec_from_loader(name, self)
            def exec_module(self, module):
                begun.set()
                time.sleep(0.5)

        begun = threading.Event()
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=__import__, args=("dispatchers_slow",))
        thread.start()
        begun.wait()
        child = os.fork()
        if child == 0:
            import dispatchers_slow
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert done.stdout == "7\n"
