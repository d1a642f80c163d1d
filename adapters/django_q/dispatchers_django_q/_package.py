"""From an envelope to a package of django-q2's, and back.

A package is what `async_task` writes: options of django-q2's stand beside the function and its
arguments, so that a task's own arguments, which are inside the envelope, never meet them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from math import ceil
from typing import Any, NamedTuple

from dispatchers import DispatchRequest

from ._options import DjangoQOptions

RUNNER = "dispatchers_django_q.run"
ID_LENGTH, NAME_LENGTH = 32, 100
"""Characters of django-q2's columns."""
EXTRA_TIME = 5
"""Seconds beyond the time limit until django-q2 kills the process: the run may end by itself."""


class Package(NamedTuple):
    """Work on its way to a cluster."""

    body: str
    attempt: int
    deliveries: int
    alias: str
    timeout: int | None
    """Seconds until django-q2 kills its process; None leaves it to `Q_CLUSTER`."""
    id: str
    name: str
    cluster: str
    due: datetime | None = None

    @classmethod
    def of(cls, request: DispatchRequest, body: bytes, alias: str, cluster: str) -> Package:
        """Return the package of a request that is dispatched."""
        limit = request.time_limit
        timeout = None if limit is None else ceil(limit) + EXTRA_TIME
        first = (body.decode(), 1, 1, alias, timeout)
        return cls(*first, id_of(request.id), request.task[:NAME_LENGTH], cluster, request.due)

    @classmethod
    def taken(cls, args: tuple[Any, ...], fields: Mapping[str, Any]) -> Package:
        """Return what a worker was handed: the function's arguments, and the other fields."""
        return cls._make([*args, fields["id"], fields["name"], fields.get("cluster", ""), None])

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments of `run`."""
        return self[:5]

    def options(self, given: DjangoQOptions) -> dict[str, Any]:
        """Return django-q2's own options, as `async_task` takes them in `q_options`."""
        chosen = {"group": given.group, "timeout": self.timeout, "cluster": self.cluster}
        return {"save": given.save, **{k: v for k, v in chosen.items() if v is not None}}

    def signed(self, given: DjangoQOptions) -> str:
        """Return the package as django-q2 writes it, signed by Django's secret."""
        from django.utils import timezone
        from django_q.signals import pre_enqueue
        from django_q.signing import SignedPackage

        call = {"func": RUNNER, "args": self.args, "kwargs": {}}
        named = {"id": self.id, "name": self.name, "started": timezone.now()}
        task = {**named, **call, **self.options(given)}
        pre_enqueue.send(sender="django_q", task=task)
        text: str = SignedPackage.dumps(task)
        return text


def id_of(request_id: str) -> str:
    """Return an id of the length that django-q2 has room for."""
    if len(request_id) <= ID_LENGTH:
        return request_id
    return sha256(request_id.encode()).hexdigest()[:ID_LENGTH]
