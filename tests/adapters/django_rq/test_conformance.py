"""`django_rq` keeps the contract, on Redis."""

from __future__ import annotations

import pytest

from dispatchers.testing import DispatcherConformance, Harness

from .harness import DjangoRQHarness

pytestmark = pytest.mark.slow  # what hands over is `rq`, whose suite runs with every change


class TestRedis(DispatcherConformance):
    @pytest.fixture
    def harness(self, place: DjangoRQHarness) -> Harness:
        return place
