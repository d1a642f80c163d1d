"""A task of Django's that does nothing; imported once there are settings."""

from __future__ import annotations

from django_tasks import task


@task
def nothing() -> None:
    pass
