"""Parts of RQ that it does not promise: each is there, and a worker says so where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import rq
from dispatchers_rq import RQDispatcher, _worker
from dispatchers_rq._worker import PRIVATE_PARTS, refuse_unknown
from rq.decorators import job
from rq.scheduler import RQScheduler
from rq.version import VERSION

from dispatchers import ConfigurationError, WorkerOptions
from dispatchers.testing.canaries import Canary

METHODS = [
    Canary(
        f"{owner.__module__}:{owner.__name__}.{name}",
        *(("self", *parameters) if parameters else ()),
    )
    for owner, names in PRIVATE_PARTS.items()
    for name, parameters in names.items()
]
ATTRIBUTES = [
    Canary(f"rq:Worker.{name}")
    for name in (
        "_stop_requested",
        "_stopped_job_id",
        "_shutdown_requested_date",
        "_state",
        "_exc_handlers",
        "job_monitoring_interval",
        "horse_pid",
    )
]


@pytest.mark.parametrize("part", METHODS + ATTRIBUTES, ids=str)
def test_a_private_part_is_unchanged(part: Canary) -> None:
    """Of the newest RQ as of the oldest: the name exists, with the parameters that are given."""
    assert part.problem() is None


def test_the_key_of_the_scheduler_s_lock() -> None:
    """By it `doctor` sees whether a queue has a scheduler."""
    assert RQScheduler.get_locking_key("mail") == "rq:scheduler-lock:mail"


def test_the_decorators_options_are_found() -> None:
    """`@job` keeps them in the closure of what it adds to the function."""
    decorator = job("mail", connection=None)  # type: ignore[arg-type]
    decorated = decorator(lambda: None)

    kept = decorated.delay.__closure__
    assert any(cell.cell_contents is decorator for cell in kept)


@pytest.mark.parametrize("name", ["perform_job", "dequeue_job_and_maintain_ttl"])
def test_a_renamed_part_is_refused_with_words(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """C12: a worker that would lose work does not start, and names the part."""
    for kind in rq.Worker.__mro__:
        if name in vars(kind):
            monkeypatch.delattr(kind, name)
    dispatcher = RQDispatcher(url="redis://localhost:1/0")

    with pytest.raises(ConfigurationError, match=rf"Worker\.{name}.*pip install"):
        dispatcher._worker(WorkerOptions())


def test_a_part_with_other_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: the same arguments would mean something else."""

    def perform_job(self: Any, execution: Any) -> bool:
        return bool(execution)

    monkeypatch.setattr(rq.Worker, "perform_job", perform_job)

    with pytest.raises(ConfigurationError, match="perform_job"):
        refuse_unknown(VERSION)


def test_what_wraps_a_part_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentry and others wrap `perform_job` with parameters of any name."""

    def patched(self: Any, job: Any, queue: Any, *args: Any, **kwargs: Any) -> bool:
        return bool(job)

    monkeypatch.setattr(rq.Worker, "perform_job", patched)
    monkeypatch.setattr(rq.Worker, "handle_exception", lambda *args, **kwargs: None)

    _worker.refuse_unknown(VERSION)
