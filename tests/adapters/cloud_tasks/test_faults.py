"""Every fault between the official client and the service: answered in time, truly, and healed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dispatchers_cloud_tasks import CloudTasksDispatcher

from dispatchers import DispatchResponse, DispatchStatus, ErrorCategory
from dispatchers.testing import FaultProxy
from dispatchers.testing.conformance._tools import answered
from tests.adapters.fault_cases import BREAKER, DEADLINE, dispatched, from_many_threads

from .service import Service
from .web import eventually

REJECTED, UNKNOWN = DispatchStatus.REJECTED, DispatchStatus.UNKNOWN
UNAVAILABLE, TIMEOUT = ErrorCategory.UNAVAILABLE, ErrorCategory.TIMEOUT


class Scene(NamedTuple):
    """A stand-in behind a proxy."""

    service: Service
    proxy: FaultProxy
    name: str


class Fault(NamedTuple):
    """What happens, what ends it, and what may be answered meanwhile."""

    begin: Callable[[Scene], object]
    end: Callable[[Scene], object]
    statuses: set[DispatchStatus]
    categories: set[ErrorCategory]


def heal(scene: Scene) -> None:
    scene.proxy.heal()


BOTH = {REJECTED, UNKNOWN}
FAULTS = {
    # A connection that is reset under a call leaves it unknown; the next one is refused.
    "refused": Fault(lambda s: s.proxy.refuse(), heal, BOTH, {UNAVAILABLE}),
    "down": Fault(lambda s: s.service.kill(), lambda s: s.service.start(), BOTH, {UNAVAILABLE}),
    "black hole": Fault(lambda s: s.proxy.black_hole(), heal, BOTH, {TIMEOUT}),
    "never accepted": Fault(
        lambda s: s.proxy.black_hole(accept=False), heal, BOTH, {TIMEOUT, UNAVAILABLE}
    ),
    "stalled": Fault(lambda s: s.proxy.stall(), heal, BOTH, {TIMEOUT}),
    "paused": Fault(lambda s: s.service.pause(), lambda s: s.service.resume(), BOTH, {TIMEOUT}),
    "reset": Fault(lambda s: s.proxy.reset(), heal, BOTH, {UNAVAILABLE}),
    "reply lost": Fault(lambda s: s.proxy.drop_reply(), heal, BOTH, {UNAVAILABLE, TIMEOUT}),
    "slow": Fault(lambda s: s.proxy.slow_drip(2.0), heal, BOTH, {TIMEOUT}),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A stand-in that may be killed."""
    with Service(tmp_path_factory.mktemp("faults")) as found:
        yield found


@pytest.fixture
def scene(own: Service) -> Iterator[Scene]:
    with FaultProxy(own.host, own.port) as proxy:
        yield Scene(own, proxy, "default")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "dispatchers")


def dispatcher_at(scene: Scene, **options: Any) -> CloudTasksDispatcher:
    host, port = scene.proxy.address
    given = {**scene.service.options(), "endpoint": f"{host}:{port}", "deadline": DEADLINE}
    return CloudTasksDispatcher(**{**given, **options})


def said(responses: list[DispatchResponse], fault: Fault, *more: ErrorCategory) -> set[object]:
    """What was answered that should not have been."""
    categories = fault.categories | set(more)
    return {
        (each.status, each.error and each.error.category)
        for each in responses
        if each.error is None
        or each.status not in fault.statuses
        or each.error.category not in categories
    }


def left(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads that were not there before."""
    return [thread for thread in threading.enumerate() if thread not in before]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_answered_in_time_and_truly(scene: Scene, name: str) -> None:
    """C2, C3, C4: the first, the next and fifty at once; afterwards it works, nothing is left."""
    fault, before = FAULTS[name], set(threading.enumerate())
    dispatcher = dispatcher_at(scene, breaker=False)
    assert eventually(lambda: dispatched(dispatcher).ok)

    fault.begin(scene)
    try:
        answers = [answered(DEADLINE, lambda: dispatched(dispatcher)) for _ in range(3)]
        crowd = from_many_threads(dispatcher)
    finally:
        fault.end(scene)
    works = eventually(lambda: dispatched(dispatcher).ok)
    dispatcher.close()

    assert not said(answers, fault)
    assert not said(crowd, fault, TIMEOUT)
    assert works
    eventually(lambda: not left(before), 10.0)
    assert not left(before)


@pytest.mark.parametrize("name", FAULTS)
def test_with_a_breaker_it_heals_within_its_reset_time(scene: Scene, name: str) -> None:
    """C4: after failures in a row nobody waits any more, and it is tried again by itself."""
    fault = FAULTS[name]
    dispatcher = dispatcher_at(scene, breaker=BREAKER)
    assert eventually(lambda: dispatched(dispatcher).ok)

    fault.begin(scene)
    try:
        answers = [answered(DEADLINE, lambda: dispatched(dispatcher)) for _ in range(5)]
    finally:
        fault.end(scene)
    time.sleep(BREAKER["reset"])
    works = eventually(lambda: dispatched(dispatcher).ok)
    dispatcher.close()

    assert not said(answers, fault, ErrorCategory.CIRCUIT_OPEN)
    assert answers[-1].error is not None
    assert answers[-1].error.category is ErrorCategory.CIRCUIT_OPEN
    assert works


def test_a_connection_that_is_not_there_is_certainly_rejected(scene: Scene) -> None:
    """C3: nothing was sent where no connection came to be; it is safe to go elsewhere."""
    for fault in ("refused", "black hole", "reset"):
        dispatcher = dispatcher_at(scene, breaker=False)
        FAULTS[fault].begin(scene)
        response = dispatched(dispatcher)
        heal(scene)
        dispatcher.close()

        assert response.status is REJECTED, fault
        assert response.error is not None
        assert response.error.retryable


def test_a_name_that_does_not_resolve_is_rejected(scene: Scene) -> None:
    dispatcher = dispatcher_at(scene, endpoint="no-such-host.invalid:443", breaker=False)

    responses = [answered(DEADLINE, lambda: dispatched(dispatcher)) for _ in range(3)]
    dispatcher.close()

    assert {each.status for each in responses} == {REJECTED}


def test_a_service_that_restarted_is_found_again(scene: Scene) -> None:
    """C2: between two calls; the second or the next one says so, and the rest succeed."""
    dispatcher = dispatcher_at(scene, breaker=False, deadline=5.0)
    assert dispatched(dispatcher).ok
    scene.service.kill()
    scene.service.start()

    answers = [dispatched(dispatcher) for _ in range(3)]
    dispatcher.close()

    assert all(answers)


def test_what_was_accepted_survives_the_death_of_the_stand_in(tmp_path: Path) -> None:
    """C9: `kill -9` in the midst of many dispatches, then a start; twice."""
    accepted: set[str] = set()
    with Service(tmp_path) as service:
        queue = service.create_queue("kept")
        service.client.pause_queue(name=queue)
        for _ in range(2):
            dispatcher = CloudTasksDispatcher(
                **{**service.options("kept"), "breaker": False, "deadline": 0.5}
            )
            killer = threading.Timer(0.4, service.kill)
            killer.start()
            answers = [dispatched(dispatcher)]
            while killer.is_alive() or answers[-1].ok:
                answers.append(dispatched(dispatcher))
            dispatcher.close()
            accepted |= {str(each.task_id) for each in answers if each.ok}
            service.start()
        request = {"parent": queue, "page_size": 1000}
        eventually(lambda: service.client.get_queue(name=queue))
        held = {task.name for task in service.client.list_tasks(request=request, timeout=30)}

    assert len(accepted) > 10
    assert accepted <= held
