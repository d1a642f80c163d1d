"""Every adapter, every fault of a broker: answered in time, truly, and over when the fault is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from dispatchers import BaseDispatcher
from dispatchers._config.registry import load_backend
from dispatchers.testing.faults import FAULTS, Scene
from tests.adapters.fault_cases import DEADLINE, heals, keeps_its_word, quiet

__all__ = ["quiet"]

pytestmark = pytest.mark.slow

ADAPTERS = {
    "celery/redis": ("celery", "redis"),
    "celery/rabbitmq": ("celery", "rabbitmq"),
    "rq": ("rq", "redis"),
    "dramatiq/redis": ("dramatiq", "redis"),
    "dramatiq/rabbitmq": ("dramatiq", "rabbitmq"),
}
CASES = [
    (adapter, fault)
    for adapter, (_, kind) in ADAPTERS.items()
    for fault in FAULTS
    if kind in FAULTS[fault].kinds
]
every_case = pytest.mark.parametrize(
    ("adapter", "fault"), CASES, ids=[" ".join(case) for case in CASES]
)


@pytest.fixture(scope="module")
def scenes(_servers: None) -> Iterator[dict[str, Scene]]:
    """One server of each kind for all cases of this module."""
    with Scene("redis", silence=2.0) as redis, Scene("rabbitmq", silence=2.0) as rabbitmq:
        yield {"redis": redis, "rabbitmq": rabbitmq}


def dispatcher_of(adapter: str, url: str, **options: Any) -> BaseDispatcher:
    kind: Any = load_backend(ADAPTERS[adapter][0])
    dispatcher: BaseDispatcher = kind(
        url=url, deadline=DEADLINE, queue=f"faults-{uuid4().hex}", **options
    )
    return dispatcher


@every_case
def test_a_fault_is_answered_in_time_and_truly(
    scenes: dict[str, Scene], adapter: str, fault: str
) -> None:
    """C2, C3, C4: the first, the next and fifty at once; afterwards it works, nothing is left."""
    keeps_its_word(scenes[ADAPTERS[adapter][1]], fault, partial(dispatcher_of, adapter))


@every_case
def test_with_a_breaker_it_heals_within_its_reset_time(
    scenes: dict[str, Scene], adapter: str, fault: str
) -> None:
    """C4: after failures in a row nobody waits any more, and it is tried again by itself."""
    heals(scenes[ADAPTERS[adapter][1]], fault, partial(dispatcher_of, adapter))
