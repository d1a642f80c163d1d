"""Workers of a project: `rqworker` as it is, with a lease, and `dispatchers_worker`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import HERE, DjangoRQHarness, Project

pytestmark = pytest.mark.slow  # whole projects of Django

LEASED = {"WORKER_CLASS": "dispatchers_django_rq.LeasedWorker"}


@pytest.fixture
def work() -> Any:
    """The project's tasks, registered here too for the length of a test."""
    spec = importlib.util.spec_from_file_location("django_rq_work", HERE / "work.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(place: DjangoRQHarness, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes a project, whose workers are killed at the end."""
    made: list[Project] = []

    def make(**rq: Any) -> Project:
        made.append(Project(place, tmp_path, **rq))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_django_rq_s_own_worker_runs_tasks(
    place: DjangoRQHarness, project: Callable[..., Project], work: Any
) -> None:
    """C9: attempts and dead letters are ours; `--with-scheduler` brings what is to come later."""
    dispatcher = place.make_dispatcher()
    site = project()
    site.start("rqworker", place.queue, "--with-scheduler")
    done, tried = site.journal("done"), site.journal("tried")

    work.note.options(dispatcher=dispatcher).dispatch(done.path, "ran").raise_for_error()
    failed = work.fail.options(dispatcher=dispatcher).dispatch(tried.path).raise_for_error()
    site.until(lambda: dispatcher._dead_letters().get(failed.request_id) is not None)

    letter = dispatcher._dead_letters().get(failed.request_id)
    assert done.texts == ["ran"]
    assert tried.texts == ["1", "2", "3"]
    assert (letter.reason, letter.attempts) == ("exhausted", 3)


@pytest.mark.parametrize(
    ("command", "rq"), [("rqworker", LEASED), ("dispatchers_worker", {})], ids=["rqworker", "ours"]
)
def test_work_of_a_killed_worker_runs_again(
    place: DjangoRQHarness, project: Callable[..., Project], work: Any, command: str, rq: Any
) -> None:
    """C9: under a lease; `rqworker` has it by its setting `WORKER_CLASS`."""
    dispatcher = place.make_dispatcher()
    site = project(**rq)
    arguments = [place.queue] if command == "rqworker" else []
    killed = site.start(command, *arguments)
    ran, tried = site.journal("ran"), site.journal("tried")

    work.linger.options(dispatcher=dispatcher).dispatch(ran.path).raise_for_error()
    site.until(lambda: ran.texts == ["began"])
    site.kill(killed)
    worker = site.start(command, *arguments)
    work.fail.options(dispatcher=dispatcher).dispatch(tried.path).raise_for_error()
    site.until(lambda: ran.texts[1:] == ["began", "ended"] and len(tried.texts) == 3)
    worker.terminate()

    assert [entry.deliveries for entry in ran.entries] == [1, 2, 2]
    assert worker.wait(60) == 0


def test_a_leased_worker_ends_when_all_is_done(
    place: DjangoRQHarness, project: Callable[..., Project], work: Any
) -> None:
    """`--burst` does what it says, and the options of `rqworker` are taken."""
    dispatcher = place.make_dispatcher()
    site = project(**LEASED)
    ran = site.journal("ran")
    for number in range(3):
        work.note.options(dispatcher=dispatcher).dispatch(ran.path, str(number)).raise_for_error()

    worker = site.start("rqworker", place.queue, "--burst", "--name", f"burst-{place.queue}")

    assert worker.wait(60) == 0, (site.folder / "worker.log").read_text()
    assert ran.texts == ["0", "1", "2"]
