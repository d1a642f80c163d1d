"""`worker`: signs of life, the log as JSON, and what is refused before any work is taken."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    ConfigurationError,
    Stats,
    WorkerOptions,
    override,
    queue_stats,
)
from dispatchers._runtime.log_format import JsonFormatter
from dispatchers._worker.signals import stopped_by_signals
from dispatchers.cli import _health, _worker
from dispatchers.cli._health import Health, notify

from .conftest import SHOP, Shop
from .test_worker import Broker

QUEUE = f'{SHOP}default = {{ backend = "sqlite", path = "work.sqlite3" }}\n'


def got(port: int) -> tuple[int, dict[str, object]]:
    """Return what the health port answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_the_port_answers_while_the_worker_is_well() -> None:
    """The health port answers 200 while the worker takes work, else 503, and says which."""
    well, port = True, free_port()
    health = Health(lambda: well, address=("127.0.0.1", port))

    with health.shown():
        up = got(port)
        well = False
        stuck = got(port)
        well = health.stopping = True
        stopping = got(port)

    assert up == (200, {"status": "ok", "pid": os.getpid()})
    assert (stuck[0], stuck[1]["status"]) == (503, "stuck")
    assert (stopping[0], stopping[1]["status"]) == (503, "stopping")
    with pytest.raises(urllib.error.URLError):
        got(port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("option", "hosts"), [("", ["127.0.0.1", "[::1]"]), ("[::1]:", ["[::1]"])], ids=["any", "six"]
)
def test_the_port_answers_on_ipv6(option: str, hosts: list[str]) -> None:
    """Without a host the port answers on IPv4 and IPv6, and on the address that is named."""
    port = free_port()
    with Health(lambda: True, address=_worker._address(f"{option}{port}")).shown():
        for host in hosts:
            with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
                assert answer.status == 200


def test_a_worker_with_handlers_of_its_own_is_stopping(shop: Shop) -> None:
    """The port says `stopping` while a worker that handles signals by itself finishes its runs."""
    port = free_port()
    said: list[tuple[int, dict[str, object]]] = []

    class Handling(Broker):
        library = "json"

        def _worker(self, options: WorkerOptions) -> Any:
            class Inner:
                def run(self) -> int:
                    with stopped_by_signals(self.stop):
                        said.append(got(port))
                        signal.raise_signal(signal.SIGTERM)
                        said.append(got(port))
                    return 0

                def stop(self) -> None: ...

            return Inner()

    shop.configure('target = "t"\ntargets.t.default = "inline"\n')
    with override(default=Handling()):
        shop("worker", "--health-port", str(port))

    assert [(code, each["status"]) for code, each in said] == [(200, "ok"), (503, "stopping")]


def test_a_child_that_outlives_its_worker_does_not_keep_the_port() -> None:
    """A process forked by the worker has not the port: the next worker can take it."""
    port = free_port()
    until, over = os.pipe()
    with Health(lambda: True, address=("127.0.0.1", port)).shown():
        child = os.fork()
        if child == 0:
            os.close(over)
            os.read(until, 1)
            os._exit(0)
    try:
        with Health(lambda: True, address=("127.0.0.1", port)).shown():
            assert got(port)[0] == 200
    finally:
        os.close(over)
        os.close(until)
        os.waitpid(child, 0)


def test_a_worker_whose_own_word_raises_is_stuck() -> None:
    """What an adapter's `healthy` raises ends neither the port nor the file."""

    def healthy() -> bool:
        raise RuntimeError

    assert Health(healthy).status == "stuck"


def test_the_file_is_renewed_while_the_worker_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health file is written again and again while the worker is well, and gone at its end."""
    monkeypatch.setattr(_health, "INTERVAL", 0.01)
    file, asked = tmp_path / "health", threading.Semaphore(0)
    well = True

    def healthy() -> bool:
        asked.release()
        return well

    with Health(healthy, file=file).shown():
        first = file.stat().st_mtime_ns
        while file.stat().st_mtime_ns == first:
            asked.acquire(timeout=10)
        well = False
        for _ in range(3):
            asked.acquire(timeout=10)
        last = file.stat().st_mtime_ns
        for _ in range(5):
            asked.acquire(timeout=10)
        assert file.stat().st_mtime_ns == last

    assert not file.exists()


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd hears READY, WATCHDOG while the worker is well, and STOPPING."""
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(10)
        health = Health(lambda: True)
        with health.shown():
            heard = [systemd.recv(100), systemd.recv(100)]
            health.stopping = True
            while (last := systemd.recv(100)) == b"WATCHDOG=1":
                pass

    assert heard == [b"READY=1", b"WATCHDOG=1"]
    assert last == b"STOPPING=1"


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd, or with one that is gone, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "@dispatchers-nobody")
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--health-file", "missing/health", "--health-file 'missing/health' cannot be written"),
        ("--health-port", "9.9.9.9:1", "--health-port: 9.9.9.9:1 cannot be listened on"),
        ("--health-port", "x", "'x' is not a port"),
        ("--health-port", "99999", "'99999' is not a port"),
        ("--health-port", "0", "'0' is not a port"),
    ],
)
def test_signs_that_cannot_be_given_are_refused(
    shop: Shop, option: str, value: str, words: str
) -> None:
    """A health file or port that cannot be had ends the worker at once, with words."""
    with override(default=Broker()):
        said = shop("worker", option, value)

    assert said.code == 2
    assert words in said.err


def test_the_log_is_json(shop: Shop) -> None:
    """`--log-format json` writes each record as one object, those of child processes too."""
    shop.configure(QUEUE)
    shop("dispatch", "shop.welcome", "user_id=1")
    shop("dispatch", "shop.boom")

    said = shop.process("worker", "--drain", "--log-format", "json")

    records = [json.loads(line) for line in said.stderr.decode().splitlines() if line[:1] == "{"]
    done = next(each for each in records if each.get("reason") == "succeeded")
    failed = next(each for each in records if each["level"] == "ERROR")
    assert said.returncode == 0
    assert done["task"] == "shop.welcome"
    assert done["attempt"] == 1
    assert done["seconds"] >= 0
    assert len(done["request_id"]) == 32
    assert failed["task"] == "shop.boom"
    assert len(records) == len(said.stderr.splitlines())
    assert said.stdout == b"hello 1\n"  # what tasks print is theirs


def test_a_record_keeps_its_extras_and_its_traceback() -> None:
    """A record as JSON has what was given as extra, and the traceback as text."""
    try:
        raise ValueError("why")
    except ValueError as exc:
        info = (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("dispatchers", logging.ERROR, "f.py", 1, "a %s", ("b",), info)
    record.request_id = "id"
    record.odd = object()

    found = json.loads(JsonFormatter().format(record))

    assert (found["message"], found["level"], found["request_id"]) == ("a b", "ERROR", "id")
    assert "ValueError: why" in found["exception"]
    assert found["odd"].startswith("<object")


def test_success_is_seen_by_default(shop: Shop) -> None:
    """A finished run is one line of the worker's log: task, attempt, request and seconds."""
    shop.configure(QUEUE)
    shop("dispatch", "shop.welcome", "user_id=1")

    said = shop.process("worker", "--drain").stderr.decode()

    line = next(each for each in said.splitlines() if "INFO run of shop.welcome" in each)
    assert "(attempt 1 of 5, request " in line
    assert line.endswith(" s)")


def test_a_project_that_sets_its_logging_up_sees_what_runs(shop: Shop) -> None:
    """`dictConfig` disables loggers it does not name: the worker's is heard in spite of it."""
    shop.module(
        "cli_shop",
        "import logging.config\nfrom dispatchers import task\n"
        "logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO', 'handlers': ['all']},"
        " 'handlers': {'all': {'class': 'logging.FileHandler', 'filename': 'all.log'}}})\n"
        "@task(name='shop.welcome')\ndef welcome(user_id: int) -> None: ...\n",
    )
    shop.configure(QUEUE)
    shop.process("dispatch", "shop.welcome", "user_id=1")

    said = shop.process("worker", "--drain")

    assert said.returncode == 0
    assert "run of shop.welcome succeeded" in (shop.folder / "all.log").read_text()


def test_a_worker_without_tasks_is_refused(shop: Shop) -> None:
    """A worker that could run nothing is refused, with the cure, also with --drain."""
    shop.configure('target = "t"\n[targets.t.default]\nbackend = "sqlite"\npath = "q"\n')
    shop("dispatch", "shop.welcome", "user_id=1")

    said = shop.process("worker", "--drain")
    checked = shop("doctor")

    assert said.returncode == 2
    assert b"no task modules are configured: a worker could run nothing" in said.stderr
    assert b'tasks = ["shop.tasks"]' in said.stderr
    assert "warning" in checked.out
    assert "no task modules are configured" in checked.out


def test_modules_without_tasks_are_no_tasks(shop: Shop) -> None:
    """Modules that define nothing, or only declare, are named."""
    shop.module("cli_shop_empty", "from dispatchers import declare\n")
    shop.configure(
        'tasks = ["cli_shop_empty"]\ntarget = "t"\n'
        '[targets.t.default]\nbackend = "sqlite"\npath = "q"\n'
    )

    said = shop.process("worker", "--drain")

    assert said.returncode == 2
    assert b"the modules cli_shop_empty define no tasks" in said.stderr


def test_a_brokers_worker_without_tasks_is_warned(shop: Shop) -> None:
    """A worker of a broker's library may have native tasks: it runs, with a loud warning."""

    class Native(Broker):
        library = "json"

    shop.configure('target = "t"\ntargets.t.default = "inline"\n')
    with override(default=Native()):
        said = shop("worker")

    assert said.code == 0
    assert "warning: no task modules are configured" in said.err


def test_drain_says_how_much_is_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """`worker --drain` says now and then how much is left, where the backend can tell."""
    monkeypatch.setattr(_worker, "PROGRESS_INTERVAL", 0.02)
    shop.module(
        "cli_shop",
        "import time\nfrom dispatchers import task\n"
        "@task(name='shop.slow')\ndef slow() -> None: time.sleep(0.3)\n",
    )
    shop.configure(QUEUE)
    shop("dispatch", "shop.slow")

    said = shop("worker", "--drain", "--concurrency", "1")

    assert said.code == 0
    assert "left to do: 1 waiting, 0 running" in said.err or "0 waiting, 1 running" in said.err


def test_drain_says_nothing_of_a_backend_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not taken for one that has nothing to do."""
    monkeypatch.setattr(_worker, "PROGRESS_INTERVAL", 0.0)
    told, is_told = list[str](), threading.Event()

    class Away(Broker):
        library = "json"
        answers = iter([OSError("down"), OSError("down"), queue_stats(waiting={"q": 1})])

        def _stats(self, *, timeout: float) -> list[Stats]:
            found = next(self.answers, OSError("down"))
            if isinstance(found, OSError):
                raise found
            return found

    def tell(text: str) -> None:
        told.append(text)
        is_told.set()

    away = Away()
    away.capabilities = away.capabilities.model_copy(update={"stats": True})
    with _worker._progress(away, WorkerOptions(drain=True), tell):
        assert is_told.wait(30)

    assert told == ["left to do: 1 waiting, 0 running, 0 delayed"]


# Systems that are not POSIX.


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchers.cli._worker.lacks_posix", lambda: "win32 has no os.fork")
    monkeypatch.setattr("dispatchers.cli._doctor.lacks_posix", lambda: "win32 has no os.fork")
    monkeypatch.setattr("dispatchers.cli._demo.lacks_posix", lambda: "win32 has no os.fork")


@pytest.mark.usefixtures("windows")
def test_doctor_worker_and_demo_refuse_another_system(shop: Shop) -> None:
    """Without POSIX, `doctor`, `worker` and `demo` say at once what does not work, and why."""
    shop.configure(QUEUE)

    checked, worked, shown = shop("doctor"), shop("worker"), shop("demo")

    words = "the worker of 'default' (sqlite) needs a POSIX system, and win32 has no os.fork"
    assert checked.code == 1
    assert words in checked.out
    assert worked.code == 2
    assert words in worked.err
    assert shown.code == 2
    assert "the demo starts a worker, which needs a POSIX system" in shown.err


@pytest.mark.usefixtures("windows")
def test_other_backends_work_on_another_system(shop: Shop) -> None:
    """What needs no POSIX is not refused, and a queue elsewhere is a warning only."""

    class Native(Broker):
        library = "json"
        posix_worker = True

    with override(default=Native(), other="inline"):
        checked, worked = shop("doctor"), shop("worker")

    assert checked.code == 0
    assert "needs a POSIX system" in checked.out
    assert worked.code == 2


def test_a_named_worker_that_is_not_needed_says_why(shop: Shop) -> None:
    """Where tasks run in the dispatching process, the error says so."""
    shop.configure(f'{SHOP}default = "thread"\nother = "null"\n')

    said = shop("worker")

    assert said.code == 2
    assert (
        "no worker is needed: 'default' (thread) runs tasks in the dispatching process" in said.err
    )
    assert "'other' (null) has no worker of its own" in said.err


def test_a_worker_without_its_own_word_is_well() -> None:
    """A worker that knows nothing of its health is well while it runs."""
    assert _worker._own_word(object())()  # type: ignore[arg-type]
    assert issubclass(Broker, BaseDispatcher)
    assert ConfigurationError
