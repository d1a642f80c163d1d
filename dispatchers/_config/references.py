"""Names of what stands in rooms above this one, imported when it is wanted."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BUILT_IN", "ENDPOINT_CHECK", "ENDPOINT_SETTINGS", "JOURNAL_CHECK", "LIBRARIES"]

BUILT_IN: Mapping[str, str] = {
    "inline": "dispatchers.backends.inline:InlineDispatcher",
    "thread": "dispatchers.backends.thread:ThreadDispatcher",
    "asyncio": "dispatchers.backends.asyncio:AsyncioDispatcher",
    "memory": "dispatchers.backends.memory:MemoryDispatcher",
    "null": "dispatchers.backends.null:NullDispatcher",
    "sqlite": "dispatchers.backends.sqlite:SQLiteDispatcher",
    "failover": "dispatchers.backends.failover:FailoverDispatcher",
    "spill": "dispatchers.backends.spill:SpillDispatcher",
    "outbox": "dispatchers.outbox:OutboxDispatcher",
}
"""Backends of the core, by name."""


LIBRARIES: Mapping[str, str] = {
    "celery": "celery",
    "cloud_tasks": "google.cloud.tasks_v2",
    "django_q": "django_q",
    "django_rq": "django_rq",
    "django_tasks": "django_tasks",
    "dramatiq": "dramatiq",
    "rq": "rq",
    "sqs": "boto3",
}
"""Bundled adapters, and the module that the extra of each brings."""


ENDPOINT_SETTINGS = "dispatchers.http:EndpointSettings"
"""The model of the table `[endpoint]`."""


ENDPOINT_CHECK = "dispatchers.http._startup:_of_endpoint"
"""The start-up check of the worker's HTTP endpoint."""


JOURNAL_CHECK = "dispatchers._journal.loading:problems_of_journal"
"""The start-up check of the setting `workflows`."""
