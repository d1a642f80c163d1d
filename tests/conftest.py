"""What every test starts from: nothing configured, no tasks and hooks but those of imports."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest

import dispatchers
from dispatchers import _classify, _instances, hooks
from dispatchers._catalogue import catalogue


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A shell that starts tests in the background has them, and their children, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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

    logging.getLogger().setLevel(level)  # Celery's worker, run in this process, sets it
    catalogue._tasks, catalogue._former = tasks, former
    vars(hooks.hooks).update(added)
    _classify._classes.clear()
    _classify._classes.update(classes)
    monkeypatch.undo()
    if _instances.state.view.explicit is not explicit:
        dispatchers.configure()
