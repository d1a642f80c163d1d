"""A page over the idempotency store, to look at and not to change."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from .models import Claim

__all__ = ["ClaimAdmin"]


@admin.register(Claim)
class ClaimAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # at run time it takes none
    """Read-only: a claim that somebody deletes may run twice."""

    list_display = ("task", "key", "owner", "changed_at", "done_until")
    list_filter = ("task",)
    search_fields = ("=key", "task")
    date_hierarchy = "changed_at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False
