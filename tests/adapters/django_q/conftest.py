"""Django with django-q2, where no other tests of this process have set it up."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("django_q") is None:
    pytest.skip('needs pip install "dispatchers[django-q]"', allow_module_level=True)

import django
from django.conf import settings
from django.core.management import call_command

from .harness import OrmHarness, RedisHarness


@pytest.fixture(autouse=True, scope="session")
def _tables() -> None:
    """The tables are there; here and not on import, as other tests set Django up on import."""
    if not settings.configured:
        _set_up()
    call_command("migrate", "django_q", verbosity=0)


def _set_up() -> None:
    folder = tempfile.mkdtemp(prefix="dispatchers-django-q-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder) / "db.sqlite3")}
    values: dict[str, Any] = {
        "DATABASES": {"default": file},
        "INSTALLED_APPS": ["django_q"],
        "LOGGING_CONFIG": None,
        "Q_CLUSTER": {"name": "tests", "orm": "default", "timeout": 30, "retry": 60, "workers": 1},
        "SECRET_KEY": "of these tests",
        "USE_TZ": True,
    }
    settings.configure(**values)
    django.setup()


@pytest.fixture
def orm(_tables: None) -> Iterator[OrmHarness]:
    """A cluster whose packages are rows of a database."""
    found = OrmHarness()
    yield found
    found.end()


@pytest.fixture
def redis(_tables: None, shared_redis: str) -> Iterator[RedisHarness]:
    """A cluster whose packages are in Redis."""
    found = RedisHarness(shared_redis)
    yield found
    found.end()
