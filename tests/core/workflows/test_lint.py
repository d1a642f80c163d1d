"""The lint of workflow bodies: what a replay would not repeat is found, with its cure."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatchers import catalogue
from dispatchers._runtime.importing import imported
from dispatchers.workflows._lint import Finding, lint

PRELUDE = """\
import asyncio, contextlib, datetime as dt, json, os, secrets, socket, subprocess
import threading, time, uuid
import random as dice
from datetime import date, datetime, timezone
from functools import partial
from os import urandom
from time import time as clock
from urllib import request as web
from urllib.parse import quote

from dispatchers import task

KNOWN = {"a", "b"}
CACHE = {}
ORDER = ["a", "b"]
rng = dice.Random(7)

@task(name="lint.charge")
def charge(order: int) -> int: ...

@task(name="lint.reserve")
async def reserve(order: int) -> int: ...
"""

Lint = Callable[..., list[Finding]]


@pytest.fixture
def linted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lint]:
    """Lint a body, given as text, in a module of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(catalogue, "_tasks", {})
    names = []

    def lints(body: str, more: str = "") -> list[Finding]:
        name = f"lint_flow_{len(names)}"
        names.append(name)
        inner = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
        text = f"{PRELUDE}\n{textwrap.dedent(more)}\nasync def flow(order: int) -> None:\n{inner}\n"
        (tmp_path / f"{name}.py").write_text(text)
        return lint(imported(name).flow)

    yield lints
    for name in names:
        sys.modules.pop(name, None)


REPEATED = [
    ("time.time()", "now()"),
    ("clock()", "now()"),
    ("time.monotonic_ns()", "now()"),
    ("time.perf_counter()", "now()"),
    ("time.sleep(1)", "asyncio.sleep"),
    ("time.gmtime()", "now()"),
    ("datetime.now(timezone.utc)", "now()"),
    ("datetime.utcnow()", "now()"),
    ("dt.datetime.now()", "now()"),
    ("datetime.today()", "now()"),
    ("date.today()", "now()"),
    ("dice.random()", "random()"),
    ("dice.choice(ORDER)", "random()"),
    ("dice.Random()", "seed"),
    ("rng.random()", "random()"),
    ("uuid.uuid4()", "uuid4()"),
    ("uuid.uuid1()", "uuid4()"),
    ("secrets.token_hex()", "local(fn"),
    ("os.urandom(8)", "local(fn"),
    ("urandom(8)", "local(fn"),
    ("hash('a')", "hashlib"),
    ("open('file')", "local(fn"),
    ("web.urlopen('http://x')", "local(fn"),
    ("socket.create_connection(('x', 1))", "local(fn"),
    ("subprocess.run(['true'])", "local(fn"),
    ("threading.Thread(target=print)", "local(fn"),
    ("await asyncio.to_thread(print)", "local(fn"),
    ("asyncio.get_running_loop().run_in_executor(None, print)", "local(fn"),
    ("list(asyncio.as_completed([]))", "asyncio.wait"),
    ("charge(order)", "await charge.step(...)"),
    ("global CACHE", "variable of the workflow"),
    ("CACHE['a'] = 1", "variable of the workflow"),
    ("CACHE.setdefault('a', 1)", "variable of the workflow"),
    ("del CACHE['a']", "variable of the workflow"),
    ("ORDER.append('c')", "variable of the workflow"),
    ("json.indent = 2", "variable of the workflow"),
    ("list(KNOWN)", "sorted(...)"),
    ("print(*KNOWN)", "sorted(...)"),
    ("[each for each in KNOWN]", "sorted(...)"),
    ("{each: 1 for each in {'a', 'b'}}", "sorted(...)"),
    ("{'a', 'b'}.pop()", "sorted(...)"),
    ("enumerate(set(ORDER) - {'a'})", "sorted(...)"),
    ("sorted([1], key=lambda each: charge.step(each))", "async def"),
]


@pytest.mark.parametrize(("code", "cure"), REPEATED, ids=[code for code, _ in REPEATED])
def test_each_has_its_line_and_its_cure(linted: Lint, code: str, cure: str) -> None:
    """D6, D8: what a replay does not repeat is one finding, at its line, with its cure."""
    found = linted(f"await reserve.step(order)\n{code}")

    (finding,) = found
    lines = Path(finding.file).read_text().splitlines()
    assert lines[finding.line - 1].strip() == code
    assert cure in finding.message


FINE = [
    "time.gmtime(0)",
    "datetime(2026, 1, 1)",
    "datetime.fromtimestamp(0, timezone.utc)",
    "dice.Random(7).random()",
    "uuid.UUID(int=1)",
    "uuid.uuid5(uuid.NAMESPACE_DNS, 'a')",
    "quote('a b')",
    "await charge.step(order)",
    "await reserve(order)",
    "charge.function(order)",
    "await asyncio.sleep(1)",
    "asyncio.create_task(reserve(order))",
    "sorted(KNOWN)",
    "sum(len(each) for each in KNOWN)",
    "{each.upper() for each in KNOWN}",
    "'a' in KNOWN",
    "CACHE.get('a')",
    "[*ORDER]",
    "raise subprocess.CalledProcessError(1, 'a')",
]


@pytest.mark.parametrize("code", FINE)
def test_what_is_the_same_each_time_is_not_found(linted: Lint, code: str) -> None:
    """Calls with the same result at each replay, steps and plain reads are no findings."""
    assert linted(code) == []


def test_loops_over_sets(linted: Lint) -> None:
    """D4: a variable that only ever holds sets is one; the sets of `asyncio.wait` are not."""
    found = linted("""
        skus = {"a", "b"} | KNOWN
        for sku in skus:
            await reserve.step(order)
        pending = {reserve.step(n) for n in range(3)}
        while pending:
            done, pending = await asyncio.wait(pending)
            for each in (*done, *pending):
                print(each)
    """)

    assert [each.message.partition(" ")[0] for each in found] == ["skus"]


def test_a_set_as_an_argument(linted: Lint) -> None:
    """D4: the annotation of an inner function's argument says that it is a set."""
    found = linted("""
        async def all_of(skus: set[str], others: list[str]) -> None:
            for sku in skus: ...
            for other in others: ...
    """)

    assert len(found) == 1


def test_own_functions_with_such_names(linted: Lint) -> None:
    """A function of the user's own is no finding, whatever its name."""
    more = """
        def random() -> int: return 4

        class time:
            @staticmethod
            def time() -> float: return 0.0
    """
    body = """
        def open(name: str) -> str: return name
        uuid = {}
        uuid.uuid4 = lambda: 1
        random(); time.time(); open("a"); uuid.uuid4()
    """

    assert linted(body, more) == []


def test_imports_inside_and_names_for_them(linted: Lint) -> None:
    """Imports in the function are seen as those of its module are."""
    found = linted("""
        import time as t
        from random import choice as pick
        from uuid import uuid4
        import httpx
        t.time(); pick([1]); uuid4(); httpx.get("http://x")
    """)

    assert {each.message.partition(" ")[0] for each in found} == {
        "t.time",
        "pick",
        "uuid4",
        "httpx.get",
    }


@pytest.mark.parametrize(
    ("handler", "findings"),
    [
        ("except BaseException: pass", 1),
        ("except: pass", 1),
        ("except (ValueError, BaseException): print()", 1),
        ("except BaseException: raise", 0),
        ("except Exception: pass", 0),
        ("except asyncio.CancelledError: pass", 0),
    ],
)
def test_swallowed_cancellation(linted: Lint, handler: str, findings: int) -> None:
    """D11: catching everything without raising it swallows the cancellation."""
    found = linted(f"try:\n    await reserve.step(order)\n{handler}")

    assert len(found) == findings
    assert all("cancellation" in each.message for each in found)


def test_suppressing_everything(linted: Lint) -> None:
    """D11: so does suppressing everything."""
    assert len(linted("with contextlib.suppress(BaseException): ...")) == 1


def test_a_comment_silences_its_line(linted: Lint) -> None:
    """`# durable: ok` silences the line that it stands on, and no other."""
    found = linted("""
        time.time()  # durable: ok, it is only logged
        print(
            time.time(),
            time.time_ns(),  # durable: ok
        )
        time.monotonic()
    """)

    assert [each.message.partition(" ")[0] for each in found] == ["time.time", "time.monotonic"]


def test_functions_that_are_called_in_the_module(linted: Lint) -> None:
    """Functions of the same module are looked at where a workflow calls them, at any depth."""
    more = """
        def stamp() -> float: return inner()

        def inner() -> float: return time.time()

        def unused() -> float: return time.time()
    """

    found = linted("await reserve.step(stamp())", more)

    assert len(found) == 1


def test_functions_that_call_each_other_end(linted: Lint) -> None:
    """Functions that call each other are looked at once each."""
    more = """
        async def one() -> None: await two()

        async def two() -> None: time.time(); await one()
    """

    assert len(linted("await one()", more)) == 1


def test_what_local_runs_is_free(linted: Lint) -> None:
    """D6: a function for `local` may do anything; its arguments are the workflow's."""
    more = """
        async def local(fn, *args): ...
        local.__module__ = "dispatchers.workflows._language"
        def fetch(url: str) -> str: return web.urlopen(url)
    """
    body = """
        def read(at: float) -> str: return open(f"{at}").read()
        await local(fetch, "http://x")
        await local(read, 1.0)
        await local(partial(read, 2.0))
        await local(lambda: dice.random())
        await local(read, time.time())
    """

    found = linted(body, more)

    assert [each.message.partition(" ")[0] for each in found] == ["time.time"]


def test_variables_of_an_enclosing_function(linted: Lint) -> None:
    """A workflow made in a function shares that function's variables with its other executions."""
    more = """
        def made():
            count = 0
            async def inner() -> None:
                nonlocal count
                own = 0
                def add() -> None:
                    nonlocal own
                    own += 1
                count += 1
            return inner

        shared = made()
    """
    linted("...", more)

    found = lint(sys.modules["lint_flow_0"].shared)

    assert len(found) == 1


def test_a_proxy_is_not_asked(linted: Lint) -> None:
    """Looking at a name runs none of its code."""
    more = """
        class Proxy:
            def __getattribute__(self, name):
                raise RuntimeError("outside of a request")

        proxy = Proxy()
    """

    assert linted("proxy.add(1)\nproxy()", more) == []


def test_without_source_there_is_nothing_to_find() -> None:
    """Code whose source is not there, a builtin included, has no findings."""
    namespace: dict[str, Callable[[], None]] = {}
    exec("import time\ndef flow(): time.time()", namespace)

    assert lint(namespace["flow"]) == lint(len) == []


DROPPED = """
    from dispatchers.workflows import Signal, local, restart, workflow

    go = Signal("lint.go", int)

    @workflow(name="lint.child")
    async def child() -> None: ...
"""


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("charge.step(order)", "await it"),
        ("charge.options(queue='slow').step(order)", "await it"),
        ("reserve(order)", "await it"),
        ("child()", "await it"),
        ("child.step()", "await it"),
        ("local(len, ORDER)", "await it"),
        ("go.receive()", "await it"),
        ("restart(order=2)", "raise restart"),
    ],
)
def test_what_is_asked_for_and_dropped(linted: Lint, code: str, cure: str) -> None:
    """D3: without an await, neither Python nor the execution says that it may not run."""
    (finding,) = linted(code, DROPPED)

    assert cure in finding.message


@pytest.mark.parametrize(
    "code",
    [
        "charge.dispatch(order)",
        "begun = charge.step(order)",
        "await child()",
        "await local(len, ORDER)",
        "raise restart(order=2)",
        "go.send(child, 'key', 1)",
    ],
)
def test_what_is_used_or_needs_no_await(linted: Lint, code: str) -> None:
    """A future that is kept, and a dispatch, are fine."""
    assert linted(code, DROPPED) == []
