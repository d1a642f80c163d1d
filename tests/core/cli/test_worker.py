"""`worker`: the right worker for the selected target, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    Worker,
    WorkerOptions,
    override,
)
from dispatchers._worker.signals import stopped_by_signals
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.spill import SpillDispatcher

from .conftest import SHOP, Shop


class Noted:
    """A worker that ends at once and notes what it was told."""

    def __init__(self, options: WorkerOptions, code: int) -> None:
        self.options = options
        self.code = code
        self.stopped = 0

    def run(self) -> int:
        return self.code

    def stop(self) -> None:
        self.stopped += 1


class PlacedOptions(BackendOptions):
    place: str = "here"


class Broker(BaseDispatcher):
    """A backend with a worker."""

    name = "broker"
    contract = 1
    capabilities = Capabilities(worker=True, queues=True)
    Options = PlacedOptions
    code = 0
    worker: Noted | None = None

    def _worker(self, options: WorkerOptions) -> Worker:
        self.worker = Noted(options, self.code)
        return self.worker

    def _send(self, request, body, *, timeout):
        raise NotImplementedError

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return False


class OtherBroker(Broker):
    """Another one."""

    name = "other"


class Foreign(Broker):
    """One that brings a worker of its own."""

    name = "foreign"
    capabilities = Capabilities()
    run_by = "acme's own: acme run"
    _worker = BaseDispatcher._worker


def test_the_worker_gets_the_modules_and_the_options(shop: Shop) -> None:
    """What the command line and the configuration say reaches the worker."""
    broker = Broker()
    argv = ["--concurrency", "3", "--queues", "mail,low", "--grace", "1m", "--drain"]

    with override(default=broker):
        said = shop("worker", *argv)

    assert said.code == 0
    assert broker.worker is not None
    assert broker.worker.options == WorkerOptions(
        concurrency=3, queues=("mail", "low"), modules=("cli_shop",), grace=60, drain=True
    )
    assert "target 'test'" in said.err


def test_the_default_is_a_run_per_processor(shop: Shop) -> None:
    """Without `--concurrency` there is a run at a time for each processor."""
    broker = Broker()

    with override(default=broker):
        shop("worker")

    assert broker.worker is not None
    assert 1 <= broker.worker.options.concurrency <= (os.cpu_count() or 1)


def test_a_worker_that_failed_ends_with_1(shop: Shop) -> None:
    """A worker that did not stop gracefully ends the program with 1."""
    broker = Broker()
    broker.code = 7

    with override(default=broker):
        assert shop("worker").code == 1


def test_several_backends_and_no_alias_is_an_error_that_lists_them(shop: Shop) -> None:
    """A target with several backends needs an alias, and the error lists them."""
    with override(default=Broker(), tracking=OtherBroker()):
        said = shop("worker")

    assert said.code == 2
    assert "dispatchers worker default" in said.err
    assert "dispatchers worker tracking" in said.err
    assert "(tracking: other)" in said.err


def test_the_same_backend_in_two_places_needs_an_alias_too(shop: Shop) -> None:
    """Two queues of one backend in different places need a worker each."""
    with override(default=Broker(), tracking=Broker(place="there")):
        said = shop("worker")

    assert said.code == 2
    assert "2 places" in said.err


def test_aliases_of_one_place_are_served_together(shop: Shop) -> None:
    """Aliases that only differ in what concerns callers are served by one worker, and said."""
    first, second = Broker(queue="a"), Broker(queue="b", deadline=9)

    with override(default=first, tracking=second, inline="inline"):
        said = shop("worker")

    assert said.code == 0
    assert "'default', 'tracking'" in said.err
    assert second.worker is None


def test_the_named_alias_is_served(shop: Shop) -> None:
    """`dispatchers worker ALIAS` serves that one."""
    first, second = Broker(), OtherBroker()

    with override(default=first, tracking=second):
        said = shop("worker", "tracking")

    assert said.code == 0
    assert first.worker is None
    assert second.worker is not None


def test_a_target_that_needs_no_worker_is_an_error(shop: Shop) -> None:
    """Where tasks run in the process that dispatches them there is nothing to start."""
    said = shop("worker")
    named = shop("worker", "default")

    assert said.code == named.code == 2
    assert "'default' (inline)" in said.err
    assert "no worker" in named.err


def test_work_that_another_program_runs_is_refused_with_its_command(shop: Shop) -> None:
    """There is nothing that could be started for it here."""
    with override(default=Foreign()):
        alone, named = shop("worker"), shop("worker", "default")

    assert named.code == alone.code == 2
    assert "no worker can be started here: 'default' (foreign) is run by" in alone.err
    assert "(foreign) is run by acme's own: acme run" in named.err


def test_a_worker_says_what_other_programs_run(shop: Shop) -> None:
    """Work of other aliases is not mistaken for work of this worker; `doctor` says so as well."""
    with override(default=Foreign(), tracking=Broker()):
        said, named, checked = shop("worker"), shop("worker", "tracking"), shop("doctor")

    assert said.code == named.code == 0
    assert "not here: 'default' (foreign) is run by acme's own: acme run" in said.err
    assert "not here" not in named.err
    assert "run by acme's own: acme run" in checked.out


def test_what_stands_on_such_a_backend_names_the_same_program(tmp_path: Path) -> None:
    """`failover` and `spill` hand work on; whoever runs it there is named."""
    both = FailoverDispatcher(to=[Foreign(alias="a"), Foreign(alias="b")])
    mixed = FailoverDispatcher(to=[Foreign(alias="a"), Broker()])
    with override(far=Foreign()):
        spill = SpillDispatcher(to="far", path=str(tmp_path / "held.db"))

    assert both.run_by == spill.run_by == "acme's own: acme run"
    assert mixed.run_by is None
    with pytest.raises(ConfigurationError, match="is run by acme's own: acme run"):
        both._worker(WorkerOptions())


def test_an_unknown_alias_is_an_error_with_the_nearest_name(shop: Shop) -> None:
    """A misspelt alias is an error."""
    said = shop("worker", "defualt")

    assert said.code == 2
    assert "did you mean 'default'?" in said.err


def test_the_first_signal_stops_and_the_second_ends() -> None:
    """The first signal asks the worker to stop, the second does not wait."""
    worker = Noted(WorkerOptions(), 0)

    with stopped_by_signals(worker.stop):
        signal.raise_signal(signal.SIGTERM)
        assert worker.stopped == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_the_signals_are_given_back() -> None:
    """Afterwards signals do what they did before."""
    before = signal.getsignal(signal.SIGTERM)

    with stopped_by_signals(Noted(WorkerOptions(), 0).stop):
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before


@contextlib.contextmanager
def running(shop: Shop, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A worker of `sqlite` as a process; it has said that it works."""
    shop.configure(f'{SHOP}default = {{ backend = "sqlite", path = "work.sqlite3" }}\n')
    command = [sys.executable, "-m", "dispatchers", "worker", *argv]
    with subprocess.Popen(
        command, cwd=shop.folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "backend 'sqlite'" in process.stderr.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_program_gracefully(shop: Shop, number: int) -> None:
    """SIGTERM and Ctrl-C end the program with 0."""
    with running(shop) as process:
        process.send_signal(number)

        assert process.wait(30) == 0


def test_the_end_of_standard_input_stops_the_program(shop: Shop) -> None:
    """With `--until-eof` a worker ends with the program that started it, however that ends."""
    with running(shop, "--until-eof") as process:
        assert process.stdin is not None
        process.stdin.close()

        assert process.wait(30) == 0
