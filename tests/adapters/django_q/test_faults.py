"""Every fault of Redis, under django-q2's settings: as under `rq`, answered in time and truly."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from dispatchers_django_q import DjangoQDispatcher
from django.test import override_settings

from dispatchers import BaseDispatcher
from tests.adapters.fault_cases import DEADLINE, RedisFaults, quiet, scene

__all__ = ["quiet", "scene"]

pytestmark = pytest.mark.slow


class TestFaults(RedisFaults):
    @staticmethod
    def made(url: str, **options: Any) -> BaseDispatcher:
        queue = f"faults-{uuid4().hex}"
        cluster = {"name": queue, "redis": url, "timeout": 30, "retry": 60}
        with override_settings(Q_CLUSTER=cluster), pytest.MonkeyPatch.context() as patched:
            # django-q2 has read its settings when it was imported.
            patched.setattr("django_q.conf.Conf.REDIS", url)
            return DjangoQDispatcher(queue=queue, deadline=DEADLINE, **options)
