"""Django, set up once in this process, and out of the way of every other test.

Nothing is put in `os.environ`; what the application adds to the core is there for these tests only.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import dispatchers

django = pytest.importorskip("django", reason='needs pip install "dispatchers[django]"')

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from dispatchers import hooks, task  # noqa: E402
from dispatchers.frameworks import use_settings  # noqa: E402
from dispatchers.outbox import outboxes  # noqa: E402

APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "dispatchers_django",
    # Backends of `django.tasks` that are published, where they are installed.
    *(each for each in ("django_tasks_db", "django_rq", "django_tasks_redis") if find_spec(each)),
    *(["django_q"] if find_spec("django_q") else []),  # for its own tests, in the same process
]
Q_CLUSTER = {"name": "tests", "orm": "default", "timeout": 30, "retry": 60, "workers": 1}
"""Of django-q2, which reads it when it is imported."""


def _set_up() -> None:
    """Set Django up, and take back what the application added to the core."""
    folder = tempfile.mkdtemp(prefix="dispatchers-django-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            alias: _database(Path(folder), alias) for alias in ("default", "other", "empty")
        },
        INSTALLED_APPS=APPS,
        LOGGING_CONFIG=None,
        Q_CLUSTER=Q_CLUSTER,
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        ROOT_URLCONF="dispatchers_django.urls",
        SECRET_KEY="of these tests",
        USE_TZ=True,
    )
    before = dict(vars(hooks.hooks))
    django.setup()
    vars(hooks.hooks).update(before)
    use_settings(None, "")


def _database(folder: Path, alias: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / f"{alias}.sqlite3"),
        "OPTIONS": {"timeout": 30},
    }


if not settings.configured:
    _set_up()  # here, as the modules of the tests import models


@pytest.fixture(scope="session")
def tables() -> None:
    """Both databases have their tables."""
    for alias in ("default", "other"):
        call_command("migrate", database=alias, verbosity=0)


@pytest.fixture(autouse=True)
def installed(tables: None, isolation: None) -> Iterator[None]:
    """The application is installed, and has left nothing afterwards."""
    from dispatchers_django import _connections, _settings, _transactions

    _settings.install()
    _connections.install()
    _transactions.watch()

    yield

    use_settings(None, "")
    from dispatchers_django.models import Claim, OutboxRow, TaskResult
    from django.contrib.auth.models import User

    if connections["default"].in_atomic_block:
        return  # of a TestCase, which rolls back
    for alias in ("default", "other"):
        Claim.objects.using(alias).all().delete()
        OutboxRow.objects.using(alias).all().delete()
        TaskResult.objects.using(alias).all().delete()
        User.objects.using(alias).all().delete()
    connections.close_all()


@pytest.fixture
def ran() -> list[int]:
    """What the task of `send` was called with."""
    return []


@pytest.fixture
def send(ran: list[int]) -> Any:
    """A task that notes what it is called with."""

    @task(name="shop.send")
    def send(number: int) -> None:
        ran.append(number)

    return send


@pytest.fixture(autouse=True)
def _no_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the outbox of mails, which each `TestCase` leaves behind, Django's tests are known."""
    monkeypatch.delattr("django.core.mail.outbox", raising=False)


@pytest.fixture
def use() -> Iterator[Callable[..., None]]:
    """Choose dispatchers for the rest of a test."""
    entered: list[Any] = []

    def choose(**chosen: Any) -> None:
        override = dispatchers.override(**chosen)
        override.__enter__()
        entered.append(override)

    yield choose
    for each in outboxes():
        each.close(30)  # else its thread may take the next test's rows
    for override in reversed(entered):
        override.__exit__(None, None, None)
