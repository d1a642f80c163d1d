"""Parts of django-q2 that it does not promise: each is there, as it is used."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchers.testing.canaries import Canary

from .harness import OrmHarness

PARTS = (
    Canary("django_q.signing:SignedPackage.dumps", "obj"),
    Canary("django_q.signing:SignedPackage.loads", "obj"),
    Canary("django_q.brokers.redis_broker:Redis.get_connection", "list_key"),
    Canary("django_q.models:OrmQ.objects"),
    Canary("django_q.models:Schedule.ONCE"),
    Canary("django_q.exceptions:TimeoutException"),
    Canary("django_q.signals:pre_enqueue"),
    Canary("django_q.signals:pre_execute"),
    Canary("django.db.models.options:Options.local_concrete_fields"),
    Canary("django.db.backends.base.operations:BaseDatabaseOperations.quote_name", "self", "name"),
)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_private_part_is_unchanged(part: Canary) -> None:
    """A release of django-q2 that changes it fails here first."""
    assert part.problem() is None


def test_a_package_has_the_keys_of_django_q2_s_own(orm: OrmHarness) -> None:
    """What `async_task` writes today is what we write, but for the options."""
    from django_q.models import OrmQ
    from django_q.tasks import async_task

    from dispatchers.testing import tasks

    options: dict[str, Any] = {"group": "g", "timeout": 9, "save": False, "cluster": orm.queue}
    async_task("builtins.print", "x", q_options=options)
    limited = tasks.note.options(dispatcher=orm.make_dispatcher(group="g"), time_limit=4)
    limited.dispatch("/nowhere").raise_for_error()

    theirs, ours = (row.task for row in OrmQ.objects.filter(key=orm.queue).order_by("pk"))
    assert ours.keys() == theirs.keys()
    assert {k: type(v) for k, v in ours.items()} == {k: type(v) for k, v in theirs.items()}


def test_the_list_of_a_cluster() -> None:
    """Clusters take from the key that we push to."""
    from django_q.brokers.redis_broker import Redis

    assert Redis("mail").list_key == "django_q:mail:q"
