"""Django's settings, where no other tests of this process have set it up."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("django_rq") is None:
    pytest.skip('needs pip install "dispatchers[django-rq]"', allow_module_level=True)

import django
from django.conf import settings

from .harness import DjangoRQHarness


@pytest.fixture(autouse=True, scope="session")
def _configured() -> None:
    """There are settings; here and not on import, as other tests configure theirs on import."""
    if not settings.configured:
        memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        values: dict[str, Any] = {"SECRET_KEY": "of these tests", "DATABASES": {"default": memory}}
        settings.configure(LOGGING_CONFIG=None, **values)
        django.setup()


@pytest.fixture
def place(_configured: None, shared_redis: str, tmp_path: Path) -> Iterator[DjangoRQHarness]:
    """A queue in `RQ_QUEUES`."""
    found = DjangoRQHarness(shared_redis, tmp_path)
    yield found
    found.end()
