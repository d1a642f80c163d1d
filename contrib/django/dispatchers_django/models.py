"""Models of the idempotency store, of dead letters and of the results of `django.tasks`."""

from __future__ import annotations

from datetime import datetime

from django.db import models

__all__ = ["Claim", "DeadLetter", "TaskResult"]


class Claim(models.Model):
    """A key that is claimed by a run, or whose work is done."""

    key: models.CharField[str, str] = models.CharField(max_length=64, primary_key=True)
    """SHA-256 of the task's name and the idempotency key, which may be longer than an index."""
    task: models.CharField[str, str] = models.CharField(max_length=255)
    """The task's name, for people."""
    owner: models.CharField[str, str] = models.CharField(max_length=64)
    """The run that holds it."""
    beat: models.BigIntegerField[int, int] = models.BigIntegerField(default=0)
    """Counted up with each renewal, so that observers see that the owner lives."""
    ttl: models.FloatField[float, float] = models.FloatField()
    """Seconds without a renewal after which it has run out."""
    changed_at: models.DateTimeField[datetime, datetime] = models.DateTimeField(auto_now=True)
    """The time of the last claim, renewal or completion, for people."""
    done_until: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True, blank=True, db_index=True
    )
    """Until when it is remembered that the work is done; null while it runs."""

    class Meta:
        """Its names."""

        verbose_name = "idempotency claim"
        ordering = ("-changed_at",)

    def __str__(self) -> str:
        return f"{self.task} {self.key[:12]}"


class DeadLetter(models.Model):
    """Work that failed permanently; without a table, for the admin and its permissions."""

    id: models.CharField[str, str] = models.CharField(max_length=255, primary_key=True)

    class Meta:
        """Its names."""

        verbose_name = "dead letter"
        managed = False
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.id


class TaskResult(models.Model):
    """A task of `django.tasks` that was enqueued, and what became of it.

    Values are kept as JSON text: a column of JSON refuses some, and reorders or rounds others.
    """

    id: models.CharField[str, str] = models.CharField(max_length=64, primary_key=True)
    """The id of the result and of the request that was dispatched."""
    backend: models.CharField[str, str] = models.CharField(max_length=255)
    """The alias in `settings.TASKS`."""
    task: models.TextField[str, str] = models.TextField()
    """The dotted path of the task."""
    queue: models.CharField[str, str] = models.CharField(max_length=255)
    """The name of its queue."""
    priority: models.SmallIntegerField[int, int] = models.SmallIntegerField()
    """-100 to 100."""
    run_after: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True
    )
    """When it becomes due; null is at once."""
    args: models.TextField[str, str] = models.TextField()
    """The arguments by position."""
    kwargs: models.TextField[str, str] = models.TextField()
    """The arguments by name."""
    status: models.CharField[str, str] = models.CharField(max_length=10)
    """READY, RUNNING, FAILED or SUCCESSFUL; RUNNING counts while the lease lasts."""
    owner: models.CharField[str, str] = models.CharField(max_length=32, default="")
    """The run that holds it."""
    lease_until: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True
    )
    """When a run that is not renewed any more has been killed; null while none holds it."""
    enqueued_at: models.DateTimeField[datetime, datetime] = models.DateTimeField()
    """The time of the enqueuing."""
    started_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True
    )
    """The time of the first run."""
    last_attempted_at: models.DateTimeField[datetime | None, datetime | None] = (
        models.DateTimeField(null=True)
    )
    """The time of the last run."""
    finished_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True, db_index=True
    )
    """When it succeeded, or failed for good."""
    worker_ids: models.TextField[str, str] = models.TextField(default="[]")
    """The worker of each run."""
    errors: models.TextField[str, str] = models.TextField(default="[]")
    """The class and traceback of each failure."""
    return_value: models.TextField[str, str] = models.TextField(default="null")
    """The result of a success."""

    class Meta:
        """Its names."""

        verbose_name = "task result"
        ordering = ("-enqueued_at",)
        default_permissions = ("view",)
        indexes = (models.Index(fields=["status", "lease_until"], name="dispatchers_result_lease"),)

    def __str__(self) -> str:
        return f"{self.task} {self.id[:12]}"
