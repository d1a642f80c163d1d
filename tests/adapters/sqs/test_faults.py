"""Every fault between the official client and the service: answered in time, truly, and healed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dispatchers_sqs import SQSDispatcher

from dispatchers import DispatchStatus, ErrorCategory
from dispatchers.testing.conformance._tools import answered
from dispatchers.testing.faults import FAULTS, Scene
from dispatchers.testing.processes import wait_until
from tests.adapters.fault_cases import (
    BREAKER,
    DEADLINE,
    OF_NAMES,
    dispatched,
    from_many_threads,
    quiet,
    said,
)

from .service import REGION, Service

__all__ = ["quiet"]

pytestmark = pytest.mark.slow

TIMEOUT, CIRCUIT_OPEN = ErrorCategory.TIMEOUT, ErrorCategory.CIRCUIT_OPEN
NAMES = [name for name, fault in FAULTS.items() if len(fault.kinds) > 1]
"""Those that happen to servers of every kind."""


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Scene("sqs", silence=2.0, server=Service("faults")) as found:
        yield found


def dispatcher_at(url: str, **options: Any) -> SQSDispatcher:
    return SQSDispatcher(queue="faults", region=REGION, endpoint=url, deadline=DEADLINE, **options)


def ready(dispatcher: SQSDispatcher, name: str) -> None:
    """It works, before and after the fault, but for a name that leads nowhere."""
    if name not in OF_NAMES:
        wait_until(lambda: dispatched(dispatcher).ok, "it does not work")


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_is_answered_in_time_and_truly(scene: Scene, name: str) -> None:
    """C2, C3, C4: the first, the next and many at once; afterwards it works."""
    dispatcher = dispatcher_at(scene.url_for(name), breaker=False)
    ready(dispatcher, name)

    scene.begin(name)
    try:
        answers = [answered(DEADLINE, lambda: dispatched(dispatcher)) for _ in range(3)]
        crowd = from_many_threads(dispatcher)
    finally:
        scene.end()

    # A connection that was open is reset under the call: what became of that is not known.
    assert not said(answers[1:], FAULTS[name])
    assert answers[0].status in FAULTS[name].statuses | {DispatchStatus.UNKNOWN}
    assert not said(crowd, FAULTS[name], TIMEOUT, ErrorCategory.CAPACITY)
    ready(dispatcher, name)
    dispatcher.close()


@pytest.mark.parametrize("name", NAMES)
def test_with_a_breaker_it_heals(scene: Scene, name: str) -> None:
    """C4: after failures in a row nobody waits any more, and it is tried again by itself."""
    dispatcher = dispatcher_at(scene.url_for(name), breaker=BREAKER)
    ready(dispatcher, name)

    scene.begin(name)
    try:
        answers = [answered(DEADLINE, lambda: dispatched(dispatcher)) for _ in range(5)]
    finally:
        scene.end()

    if name == "restarted":
        assert all(answers)
    else:
        assert answers[-1].error is not None
        assert answers[-1].error.category is CIRCUIT_OPEN
    ready(dispatcher, name)
    dispatcher.close()
