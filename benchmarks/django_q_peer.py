"""Dispatching to django-q2, over its own `async_task`, on both of its brokers.

Each in a process of its own, as django-q2 reads its settings when it is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from dispatchers.testing.servers import RedisServer

from ._measure import Figure, interleaved, ratio


def both() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        yield _figure("redis", server.url)
    yield _figure("orm", "default")


def _figure(broker: str, place: str) -> Figure:
    command = [sys.executable, "-m", "benchmarks.django_q_peer", broker, place]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    # Neither keeps anything on a disk: a commit there costs both the same, and hides the rest.
    return ratio(f"django_q/{broker}: a dispatch over `async_task`", 0.90, ours, theirs)


def _measured(broker: str, place: str, folder: str) -> list[float]:
    import django
    from django.conf import settings
    from django.core.management import call_command

    file = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder) / "db.sqlite3")}
    settings.configure(
        DATABASES={"default": file},
        INSTALLED_APPS=["django_q"],
        Q_CLUSTER={
            "name": "bench",
            "timeout": 30,
            "retry": 60,
            "log_level": "ERROR",
            broker: place,
        },
        SECRET_KEY="of this benchmark",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from dispatchers_django_q import DjangoQDispatcher
    from django_q.tasks import async_task

    from .tasks import small

    bound = small.options(dispatcher=DjangoQDispatcher(deadline=30.0))
    return interleaved(
        lambda: bound.dispatch(number=1, text="abc"),
        lambda: async_task("benchmarks._rq_worker.bare", 1, "abc"),
        rounds=30,
        each=20,
    )


if __name__ == "__main__":
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        print(json.dumps(_measured(*sys.argv[1:], name)))
