"""`django.tasks` both ways: Django's `@task` over a dispatcher, and our tasks over its backends.

In a process of its own, whose settings are not those of the other cases.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ._measure import Figure, interleaved, ratio


def both_ways() -> Iterator[Figure]:
    command = [sys.executable, "-m", "benchmarks.django_tasks_peer"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, unkept, immediate, ours, own = json.loads(done.stdout.splitlines()[-1])
    case = "`@task` of Django's, `DispatcherBackend` over `inline`, over the immediate backend"
    yield ratio(case, 0.50, kept, immediate)
    yield ratio(f"{case}: no results kept", 0.50, unkept, immediate)
    yield ratio("django_tasks/django-tasks-db: a dispatch over `enqueue`", 1.25, ours, own)


def _measured(folder: str) -> list[float]:
    import django
    from django.conf import settings
    from django.core.management import call_command

    file = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder) / "db.sqlite3")}
    settings.configure(
        DATABASES={"default": file},
        INSTALLED_APPS=["dispatchers_django", "django_tasks", "django_tasks_db"],
        DISPATCHERS={"default": {"BACKEND": "inline"}},
        LOGGING_CONFIG=None,
        SECRET_KEY="of this benchmark",
        TASKS={
            "default": {"BACKEND": "dispatchers_django.tasks.DispatcherBackend"},
            "unkept": {
                "BACKEND": "dispatchers_django.tasks.DispatcherBackend",
                "OPTIONS": {"results": False},
            },
            "immediate": {"BACKEND": "django_tasks.backends.immediate.ImmediateBackend"},
            "rows": {"BACKEND": "django_tasks_db.DatabaseBackend"},
        },
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from dispatchers_django_tasks import DjangoTasksDispatcher

    from ._django_tasks_work import immediate, kept, rows, unkept
    from .tasks import small

    bound = small.options(dispatcher=DjangoTasksDispatcher(tasks="rows", deadline=30.0))
    return [
        *interleaved(
            lambda: kept.enqueue(1, "abc"),
            lambda: unkept.enqueue(1, "abc"),
            lambda: immediate.enqueue(1, "abc"),
            rounds=30,
            each=20,
        ),
        *interleaved(
            lambda: bound.dispatch(number=1, text="abc"),
            lambda: rows.enqueue(1, "abc"),
            rounds=30,
            each=20,
        ),
    ]


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        print(json.dumps(_measured(name)))
