"""What every test starts from: nothing configured, no tasks and hooks but those of imports."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dispatchers
from dispatchers import hooks
from dispatchers._config import api as _instances
from dispatchers._models import failures as _classify
from dispatchers._tasks.task import catalogue

for _name in ("COLUMNS", "LINES", "TERM", "PYTHONUNBUFFERED", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(_name, None)  # tests that look at output see what a service's own log has

ROOT = str(Path(__file__).parents[1])
LONG = ("tests/docs/", "tests/adapters/", "tests/core/sqlite/", "tests/testing/")
"""Modules of processes and servers, few tests that take seconds each."""


# Cases in files of their own say what they saw, as tests do.
_folders = (each.name for each in Path(__file__).parent.iterdir() if each.is_dir())
pytest.register_assert_rewrite(*(f"tests.{name}" for name in _folders))


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-xdist begin scopes in the order below, not with those of the most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: a long module that begins last ends alone."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """Have the collector pass over ten thousand tests, each time that one asks for it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A shell that starts tests in the background has them, and their children, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes import these tests, after what is installed."""
    monkeypatch.setattr(sys, "path", [*sys.path, ROOT])


@pytest.fixture(autouse=True)
def isolation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test configures, registers or has logged is afterwards what it was before."""
    for name in [name for name in os.environ if name.startswith("DISPATCHERS_")]:
        if not name.startswith(("DISPATCHERS_REQUIRE_", "DISPATCHERS_TEST_")):
            monkeypatch.delenv(name)
    explicit = _instances.state.view.explicit
    tasks, former = dict(catalogue._tasks), dict(catalogue._former)
    added = dict(vars(hooks.hooks))
    level = logging.getLogger().level
    classes = dict(_classify._classes)

    yield

    if "dispatchers.workflows" in sys.modules:
        from dispatchers.workflows._sweep import sweeper

        sweeper.stop()
    logging.getLogger().setLevel(level)  # Celery's worker, run in this process, sets it
    catalogue._tasks, catalogue._former = tasks, former
    vars(hooks.hooks).update(added)
    _classify._classes.clear()
    _classify._classes.update(classes)
    monkeypatch.undo()
    if _instances.state.view.explicit is not explicit:
        dispatchers.configure()
