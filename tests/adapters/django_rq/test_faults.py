"""Every fault of Redis, under django-rq's settings: as under `rq`, answered in time and truly."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from dispatchers_django_rq import DjangoRQDispatcher
from django.test import override_settings

from dispatchers import BaseDispatcher
from tests.adapters.fault_cases import DEADLINE, RedisFaults, quiet, scene

__all__ = ["quiet", "scene"]

pytestmark = pytest.mark.slow


class TestFaults(RedisFaults):
    @staticmethod
    def made(url: str, **options: Any) -> BaseDispatcher:
        queue = f"faults-{uuid4().hex}"
        with override_settings(RQ_QUEUES={queue: {"URL": url, "DB": None}}):
            return DjangoRQDispatcher(queue=queue, deadline=DEADLINE, **options)
