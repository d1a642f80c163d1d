"""The options of `django_rq`."""

from __future__ import annotations

from dispatchers_rq import RQBaseOptions


class DjangoRQOptions(RQBaseOptions):
    """Options of `django_rq`: Redis, format and `ASYNC` of its queues stand in `RQ_QUEUES`."""
