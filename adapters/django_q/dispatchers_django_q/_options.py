"""The options of `django_q`."""

from __future__ import annotations

from pydantic import Field

from dispatchers import BackendOptions


class DjangoQOptions(BackendOptions):
    """Options of `django_q`: broker, clusters and limits stand in `Q_CLUSTER`."""

    group: str | None = Field(default=None, min_length=1, max_length=100)
    """The label under which django-q2 groups what it keeps of the work."""
    save: bool = False
    """Keep a row of each success, as django-q2 does by default; its envelope is in it."""
