"""A fork while another thread is in the midst of what everybody does once."""

from __future__ import annotations

import mmap
import sys

import pytest

from dispatchers._runtime.fork import _AskedGeneration, new_generation

from .forking import ran

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")


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


def test_importing_does_not_make_a_fork_during_an_import_wait() -> None:
    """C8: a module that makes a pool of processes while it is imported is imported at once."""
    script = """
        import multiprocessing, types

        class Pools(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "dispatchers_pools":
                    return importlib.util.spec_from_loader(name, self)

            def exec_module(self, module):
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    print(pool.map(abs, [-1, -2]))

        sys.meta_path.insert(0, Pools())
        import dispatchers_pools
        thread = threading.Thread(target=__import__, args=["dispatchers_pools"])
        thread.start(); thread.join()
    """

    assert ran(script) == "[1, 2]\n"


def test_a_fork_waits_for_no_other_thread() -> None:
    """C8: however long another thread imports or builds a model, a fork takes no time of ours."""
    script = """
        class Endless(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "dispatchers_endless":
                    return importlib.util.spec_from_loader(name, self)

            def exec_module(self, module):
                begun.set()
                released.wait()

        released = threading.Event()
        sys.meta_path.insert(0, Endless())
        forked_during(lambda: __import__("dispatchers_endless"), lambda: None)
        released.set()
    """

    assert ran(script) == "7\n"


def test_a_fork_that_python_did_not_see_is_noticed() -> None:
    """C8: a server that forks in C (uWSGI) has children with threads and locks of their own."""
    script = """
        @dispatchers.task
        def work() -> None: done.set()

        dispatchers.configure({"targets": {"t": {"default": {"backend": "thread"}}}}, target="t")
        done = threading.Event()
        assert work.dispatch().ok and done.wait(10)
        done = threading.Event()
        child = fork_in_c()
        if child == 0:
            ok = work.dispatch().ok and done.wait(10)
            os._exit(7 if ok else 1)
        print(exit_code_of(child))
    """

    assert ran(script) == "7\n"


def test_figures_and_checks_work_after_a_fork_that_python_did_not_see() -> None:
    """C8: what needs threads has threads of its own there, though nothing was dispatched yet."""
    script = """
        dispatchers.configure({"targets": {"t": {"default": {"backend": "thread"}}}}, target="t")
        queue = dispatchers.get_dispatcher()
        assert len(queue.stats()) == 1
        child = fork_in_c()
        if child == 0:
            queue.check(contact=True)
            os._exit(7 if len(queue.stats()) == 1 else 1)
        print(exit_code_of(child))
    """

    assert ran(script) == "7\n"


@pytest.mark.parametrize(
    "used",
    [
        "assert guard.call(lambda: 7, timeout=5) == 7",
        "assert threads.submit(lambda: 7).result(5) == 7",
        "assert bridge.submit(seven()).result(5) == 7",
    ],
    ids=["guard", "threads", "loop"],
)
def test_each_kind_of_thread_notices_a_fork_that_python_did_not_see(used: str) -> None:
    """C8: an endpoint in a server that forks in C uses its stores before it dispatches."""
    script = f"""
        from dispatchers._runtime.guard import Guard
        from dispatchers._runtime.loop_thread import bridge
        from dispatchers._runtime.to_thread import Threads

        async def seven(): return 7

        guard, threads = Guard("g"), Threads(1, "t")
        {used}
        child = fork_in_c()
        if child == 0:
            try:
                {used}
            except BaseException:
                os._exit(1)
            os._exit(7)
        print(exit_code_of(child))
    """

    assert ran(script) == "7\n"


@pytest.mark.parametrize("fork", ["os.fork", "fork_in_c"])
@pytest.mark.parametrize("kind", ["new_generation", "_AskedGeneration"])
def test_a_generation_is_zero_in_a_child(kind: str, fork: str) -> None:
    """C8: also in the child of a child, and with any way to fork."""
    script = f"""
        from dispatchers._runtime.fork import {kind}

        def child_sees(then):
            return exit_code_of(child) if (child := {fork}()) else os._exit(then())

        def in_child():
            was, generation[0] = generation[0], 2
            return 10 * was + generation[0] + 100 * child_sees(lambda: generation[0])

        generation = {kind}()
        generation[0] = 1
        print(child_sees(in_child), generation[0])
    """

    assert ran(script) == "2 1\n"


def test_a_child_is_of_another_generation_than_its_parent() -> None:
    """C8: the run that forks tells by it which of the two it is."""
    script = """
        from dispatchers._runtime.fork import generation

        def child_is_another(depth):
            before = generation[0]
            if not (child := os.fork()):
                other = generation[0] not in (0, before)
                os._exit(7 if other and (not depth or child_is_another(depth - 1)) else 1)
            return exit_code_of(child) == 7

        print(child_is_another(2))
    """

    assert ran(script) == "True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system")
def test_a_system_that_takes_any_advice_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """C8: emulators answer that they wipe in a child, and do not."""

    class Emulated(mmap.mmap):
        def madvise(self, *_: int) -> None:
            """Take any."""

    monkeypatch.setattr("dispatchers._runtime.fork.mmap", Emulated)

    assert isinstance(new_generation(), _AskedGeneration)


def test_a_handler_that_notices_a_fork_has_not_forked() -> None:
    """C8: a worker that a C program forked goes on after its first run, which dispatched."""
    script = """
        from dispatchers._models.envelope import encode
        from dispatchers._worker.runner import run_envelope

        @dispatchers.task
        def inner() -> None: ...

        @dispatchers.task
        def outer() -> None: assert inner.dispatch().ok

        body = encode(outer.request())
        if (child := fork_in_c()) == 0:
            outcome = run_envelope(body)
            os._exit(7 if outcome.action == "done" else 1)
        print(exit_code_of(child))
    """

    assert ran(script) == "7\n"
