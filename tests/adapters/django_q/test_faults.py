"""Every fault of Redis, under django-q2's settings: as under `rq`, answered in time and truly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from dispatchers_django_q import DjangoQDispatcher
from django.test import override_settings

from dispatchers import BaseDispatcher
from dispatchers.testing.faults import FAULTS, Scene
from tests.adapters.test_faults import DEADLINE, _alone, _quiet, heals, keeps_its_word

__all__ = ["_alone", "_quiet"]

pytestmark = pytest.mark.slow

every_fault = pytest.mark.parametrize(
    "fault", [name for name, each in FAULTS.items() if "redis" in each.kinds]
)


@pytest.fixture(scope="module")
def scene(_servers: None) -> Iterator[Scene]:
    """One server for all cases of this module."""
    with Scene("redis", silence=2.0) as found:
        yield found


def made(url: str, **options: Any) -> BaseDispatcher:
    """A dispatcher of settings that name this server."""
    queue = f"faults-{uuid4().hex}"
    cluster = {"name": queue, "redis": url, "timeout": 30, "retry": 60}
    with override_settings(Q_CLUSTER=cluster), pytest.MonkeyPatch.context() as patched:
        # django-q2 has read its settings when it was imported.
        patched.setattr("django_q.conf.Conf.REDIS", url)
        return DjangoQDispatcher(queue=queue, deadline=DEADLINE, **options)


@every_fault
def test_a_fault_is_answered_in_time_and_truly(scene: Scene, fault: str) -> None:
    """C2, C3, C4: the first, the next and fifty at once; afterwards it works, nothing is left."""
    keeps_its_word(scene, fault, made)


@every_fault
def test_with_a_breaker_it_heals_within_its_reset_time(scene: Scene, fault: str) -> None:
    """C4: after failures in a row nobody waits any more, and it is tried again by itself."""
    heals(scene, fault, made)
