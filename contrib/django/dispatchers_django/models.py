"""What the idempotency store keeps."""

from __future__ import annotations

from datetime import datetime

from django.db import models

__all__ = ["Claim"]


class Claim(models.Model):
    """A key that is claimed by a run, or whose work is done."""

    key: models.CharField[str, str] = models.CharField(max_length=64, primary_key=True)
    """SHA-256 of the task's name and the idempotency key, which may be longer than an index."""
    task: models.CharField[str, str] = models.CharField(max_length=255)
    """The task's name, for people."""
    owner: models.CharField[str, str] = models.CharField(max_length=64)
    """The run that holds it."""
    beat: models.BigIntegerField[int, int] = models.BigIntegerField(default=0)
    """Counted up with each renewal: whoever watches sees that the owner lives."""
    ttl: models.FloatField[float, float] = models.FloatField()
    """Seconds without a renewal after which it has run out."""
    changed_at: models.DateTimeField[datetime, datetime] = models.DateTimeField(auto_now=True)
    """When it was last claimed, renewed or completed, for people."""
    done_until: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True, blank=True, db_index=True
    )
    """Until when it is remembered that the work is done; null while it runs."""

    class Meta:
        """How it is called."""

        verbose_name = "idempotency claim"
        ordering = ("-changed_at",)

    def __str__(self) -> str:
        return f"{self.task} {self.key[:12]}"
