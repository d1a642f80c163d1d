"""What Django's tasks do here: nothing, over four backends; imported once there are settings."""

from __future__ import annotations

from django_tasks import task


@task(backend="default")
def kept(number: int, text: str) -> None:
    pass


@task(backend="unkept")
def unkept(number: int, text: str) -> None:
    pass


@task(backend="immediate")
def immediate(number: int, text: str) -> None:
    pass


@task(backend="rows")
def rows(number: int, text: str) -> None:
    pass
