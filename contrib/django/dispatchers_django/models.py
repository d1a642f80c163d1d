"""Models of claims, dead letters, the outbox and the results of `django.tasks`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = [
    "Claim",
    "DeadLetter",
    "ExactCharField",
    "ExactTextField",
    "OutboxLeader",
    "OutboxRow",
    "TaskResult",
]


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


def _exact(given: str | None, connection: BaseDatabaseWrapper) -> str | None:
    """Return a text's type with which MySQL compares exactly, as other databases do."""
    if given is None or connection.vendor != "mysql":
        return given
    return f"{given} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


class ExactCharField(models.CharField):  # type: ignore[type-arg] # at run time it takes none
    """Text of which `a` is not `A`, in MySQL neither, and that holds every character."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the type of the column."""
        return _exact(super().db_type(connection), connection)


class ExactTextField(models.TextField):  # type: ignore[type-arg] # at run time it takes none
    """The same of any length."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the type of the column."""
        return _exact(super().db_type(connection), connection)


class OutboxRow(models.Model):
    """Work that waits in the database until its dispatcher takes it.

    Written and read by the SQL of `dispatchers.outbox`, whose table this is; the model is for
    migrations, tests and people.
    """

    seq: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    """Its place in the order."""
    # Django keeps the name `id` for primary keys.
    request_id: models.CharField[str, str] = ExactCharField(max_length=64, db_column="id")
    """The request's id, by which a repeat is recognised."""
    alias: models.CharField[str, str] = ExactCharField(max_length=255)
    """The alias of the dispatcher that gets it."""
    lane: models.CharField[str, str] = ExactCharField(max_length=255)
    """Order holds within a lane: the header `lane`, else the queue."""
    task: models.CharField[str, str] = ExactCharField(max_length=255)
    """The task's name, for people."""
    deduplicate: models.BooleanField[bool, bool] = models.BooleanField()
    """The caller demands that the backend recognises duplicates."""
    body: models.BinaryField[bytes, bytes] = models.BinaryField()
    """The envelope."""
    tries: models.IntegerField[int, int] = models.IntegerField()
    """Hand-overs that were tried and not confirmed."""
    created_at: models.FloatField[float, float] = models.FloatField()
    """The time of the dispatch, in seconds since 1970."""
    why: models.TextField[str | None, str | None] = ExactTextField(null=True)
    """The answer to the last try; null before the first."""
    dead: models.BooleanField[bool, bool] = models.BooleanField()
    """It can never be taken as it is."""

    class Meta:
        """Its names."""

        db_table = "dispatchers_outbox"
        verbose_name = "outbox row"
        ordering = ("seq",)
        default_permissions = ("view",)
        permissions = (("replay_outboxrow", "Can replay dead outbox rows"),)
        indexes = (models.Index(fields=["dead", "alias", "seq"], name="dispatchers_outbox_due"),)
        # Not `unique=True`, for which PostgreSQL gets a second index that nothing reads.
        constraints = (
            models.UniqueConstraint(fields=["request_id"], name="dispatchers_outbox_id"),
        )

    def __str__(self) -> str:
        return f"{self.task} {self.request_id[:12]}"


class OutboxLeader(models.Model):
    """The process that hands over the rows of an alias."""

    alias: models.CharField[str, str] = ExactCharField(max_length=255, primary_key=True)
    """The alias of the dispatcher that gets them."""
    owner: models.CharField[str, str] = ExactCharField(max_length=64)
    """The process."""
    beat: models.BigIntegerField[int, int] = models.BigIntegerField()
    """Counted up with each renewal, so that observers see that the process lives."""
    lease: models.FloatField[float, float] = models.FloatField()
    """Seconds without a renewal after which another process takes over."""

    class Meta:
        """Its names."""

        db_table = "dispatchers_outbox_leader"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.alias} {self.owner}"
