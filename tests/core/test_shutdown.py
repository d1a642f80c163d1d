"""C1, C2, C8: dispatching while the interpreter shuts down."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

PRELUDE = """
import atexit, os
from time import monotonic
import dispatchers
from dispatchers import BaseAsyncDispatcher, BaseDispatcher, Capabilities, DispatchRequest, Sent

class Plain(BaseDispatcher):
    name = "plain"
    contract = 1
    capabilities = Capabilities()
    def _send(self, request, body, *, timeout):
        return Sent("1")
    def _category(self, exc):
        return None
    def _maybe_sent(self, exc):
        return False

class Guarded(Plain):
    guarded = True

class Awaiting(BaseAsyncDispatcher):
    name = "awaiting"
    contract = 1
    capabilities = Capabilities()
    async def _asend(self, request, body, *, timeout):
        return Sent("1")
    def _category(self, exc):
        return None
    def _maybe_sent(self, exc):
        return False

@dispatchers.task(name="shop.work")
def work(number: int) -> None:
    say("ran %d" % number)

@dispatchers.task(name="shop.awork")
async def awork(number: int) -> None:
    say("ran %d" % number)

def say(text, write=os.write):
    write(1, text.encode() + b"\\n")

def told(response, say=say):
    say(response.status.value + (" " + response.error.category.value if response.error else ""))

class AtExit:
    def __init__(self, act):
        self.act = act
    def __del__(self):
        self.act()

dispatchers.configure({"targets": {"x": {"default": {"backend": "inline"}}}}, target="x")
request = DispatchRequest(task="shop.work", payload={"number": 1})
"""


@pytest.fixture
def program() -> Callable[[str], list[str]]:
    """Runs a program to its end, and gives the lines that it wrote; it may not complain."""

    def run(text: str) -> list[str]:
        source = PRELUDE + textwrap.dedent(text)
        command = [sys.executable, "-W", "error", "-c", source]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr, done.stderr
        return done.stdout.split("\n")[:-1]

    return run


def test_an_exit_function_may_dispatch(program):
    """One that was registered before the library was, or after it."""
    lines = program("""
        atexit.register(lambda: told(work.dispatch(1)))
        told(work.dispatch(0))
    """)

    assert lines == ["ran 0", "executed", "ran 1", "executed"]


def test_an_exit_function_may_be_the_first_to_dispatch(program):
    """Nothing has been built by then."""
    lines = program("""
        import asyncio
        atexit.register(lambda: told(work.dispatch(1)))
        atexit.register(lambda: told(awork.dispatch(2)))
        atexit.register(lambda: told(asyncio.run(awork.adispatch(3))))
    """)

    assert lines == ["ran 3", "executed", "ran 2", "executed", "ran 1", "executed"]


KINDS = ("plain", "guarded", "awaiting")


@pytest.mark.parametrize("before", [True, False], ids=["used", "unused"])
def test_every_kind_of_adapter_dispatches_at_exit(program, before):
    """Where the interpreter starts no threads any more, the answer is a certain no."""
    lines = program(f"""
        all_made = [Plain(), Guarded(alias="guarded"), Awaiting()]
        if {before}:
            for made in all_made:
                made.dispatch(request)
        def act():
            for made in all_made:
                for each in (made.dispatch(request), *made.dispatch_many([request])):
                    say(made.alias)
                    told(each)
        atexit.register(act)
    """)

    assert tuple(lines[0::4]) == tuple(lines[2::4]) == KINDS
    assert set(lines[1:4:2]) == {"accepted"}
    assert set(lines[1::2]) <= {"accepted", "rejected closed", "rejected capacity"}


@pytest.mark.parametrize("before", [True, False], ids=["used", "unused"])
def test_a_destructor_may_dispatch_when_the_modules_go(program, before):
    """C1: an answer, whatever has been taken down already."""
    first = "told(work.dispatch(0))" if before else ""

    lines = program(f"""
        {first}
        import builtins
        builtins.leftover = AtExit(lambda told=told, work=work: told(work.dispatch(1)))
    """)

    assert lines[-1].startswith(("executed", "rejected"))


@pytest.mark.parametrize("before", [True, False], ids=["used", "unused"])
def test_a_destructor_never_hangs_and_never_raises(program, before):
    """C2: threads are frozen by then, so nobody answers; the deadline counts all the same."""
    lines = program(f"""
        all_made = [kind(deadline=0.2) for kind in (Plain, Guarded, Awaiting)]
        if {before}:
            for made in all_made:
                made.dispatch(request)
        def act(told=told, say=say, all_made=all_made, request=request, monotonic=monotonic):
            for made in all_made:
                started = monotonic()
                told(made.dispatch(request))
                for each in made.dispatch_many([request, request]):
                    told(each)
                say("in time" if monotonic() - started < 2 * (0.2 + 0.25) else "late")
        import builtins
        builtins.leftover = AtExit(act)
    """)

    assert lines[3::4] == ["in time"] * 3
    assert set(lines[:3]) <= {"accepted", "rejected closed", "rejected internal"}


def test_after_the_exit_functions_a_task_may_still_be_called(program):
    """Dispatchers are closed at exit, which their answers say."""
    lines = program("""
        told(work.dispatch(0))
        from dispatchers._config.lifecycle import _close_at_exit
        _close_at_exit()
        told(work.dispatch(1))
    """)

    assert lines == ["ran 0", "executed", "rejected closed"]


def test_a_task_that_exits_ends_the_program(program):
    """C1: `SystemExit` passes through an in-process dispatch."""
    lines = program("""
        @dispatchers.task(name="shop.exit")
        def leave() -> None:
            raise SystemExit(0)
        leave.dispatch()
        say("not reached")
    """)

    assert lines == []
