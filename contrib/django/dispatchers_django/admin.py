"""Pages over claims, dead letters, the outbox and results, to look at and not to change."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template import engines
from django.utils import timezone
from django.utils.timesince import timesince

from dispatchers import DeadLetter as Letter
from dispatchers.frameworks import dead_letter_stores

from .models import Claim, DeadLetter, OutboxRow, TaskResult
from .outbox import wake_all
from .stores import digest

__all__ = ["ClaimAdmin", "DeadLetterAdmin", "OutboxRowAdmin", "TaskResultAdmin"]

PAGE_SIZE = 200
"""Dead letters of one store on the page, the newest first."""
HEAD = """{% extends "admin/base_site.html" %}{% block content %}<div id="content-main">"""
LIST = f"""{HEAD}
{{% for place, rows, error in stores %}}<div class="module"><h2>{{{{ place }}}}</h2>
{{% if error %}}<p class="errornote">{{{{ error }}}}</p>{{% endif %}}
<table><thead><tr><th>Died</th><th>Task</th><th>Queue</th><th>Reason</th><th>Error</th>
<th>Attempts</th><th>Id</th></tr></thead><tbody>
{{% for letter, link in rows %}}<tr><td>{{{{ letter.died_at }}}}</td><td>{{{{ letter.task }}}}</td>
<td>{{{{ letter.queue }}}}</td><td>{{{{ letter.reason }}}}</td>
<td>{{{{ letter.error.exception_type }}}}</td><td>{{{{ letter.attempts }}}}</td>
<td><a href="{{{{ link }}}}/change/">{{{{ letter.id }}}}</a></td></tr>
{{% empty %}}<tr><td colspan="7">none</td></tr>{{% endfor %}}</tbody></table></div>
{{% empty %}}<p>Nothing keeps dead letters: set the option dead_letters.</p>{{% endfor %}}
<p>Replay, edit and delete them by <code>manage.py dispatchers dead</code>.</p></div>
{{% endblock %}}"""
SHOW = f"""{HEAD}<table>{{% for name, value in rows %}}
<tr><th>{{{{ name }}}}</th><td><pre>{{{{ value }}}}</pre></td></tr>{{% endfor %}}</table></div>
{{% endblock %}}"""


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # at run time it takes none
    """Pages without a way to change anything."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return false."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return false."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return false."""
        return False


@admin.register(Claim)
class ClaimAdmin(ReadOnlyAdmin):
    """Read-only: work whose claim is deleted may run twice."""

    list_display = ("task", "key", "status", "owner", "changed_at", "done_until")
    list_filter = ("task",)
    search_fields = ("=key", "task")
    search_help_text = "An idempotency key as it was given, its hash, or a task."
    date_hierarchy = "changed_at"

    @admin.display(ordering="done_until")
    def status(self, claim: Claim) -> str:
        """Return whether its work runs, is done, or may run again."""
        if claim.done_until is None:
            quiet = (timezone.now() - claim.changed_at).total_seconds()
            return "running" if quiet <= claim.ttl else "not renewed"
        return "done" if claim.done_until > timezone.now() else "forgotten"

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Find claims by the key that was given, of which only the hash is stored."""
        found, distinct = super().get_search_results(request, queryset, search_term)
        if search_term:
            # The stored key is a hash over task and key: the given key is hashed with each task
            # there is.
            tasks = queryset.order_by().values_list("task", flat=True).distinct()
            keys = [digest(f"{task} {search_term}") for task in tasks]
            found |= queryset.filter(key__in=keys)
        return found, distinct


@admin.register(TaskResult)
class TaskResultAdmin(ReadOnlyAdmin):
    """Read-only, without arguments, return values and tracebacks, which hold users' data."""

    list_display = ("task", "id", "status", "queue", "enqueued_at", "finished_at", "lease_until")
    list_filter = ("status", "queue", "backend")
    search_fields = ("=id", "task")
    date_hierarchy = "enqueued_at"
    exclude = ("args", "kwargs", "return_value", "errors")


@admin.register(OutboxRow)
class OutboxRowAdmin(ReadOnlyAdmin):
    """Read-only, without envelopes, which hold users' data; dead rows can be tried again."""

    list_display = ("task", "request_id", "lane", "age", "tries", "dead", "reason")
    list_filter = ("dead", "alias", "task")
    search_fields = ("=request_id", "task", "lane")
    exclude = ("body", "created_at", "why")
    readonly_fields = ("since", "reason")
    actions = ("replay",)

    @admin.display(ordering="created_at")
    def age(self, row: OutboxRow) -> str:
        """Return how long it has waited."""
        return timesince(_instant(row), depth=1)

    @admin.display(description="created at")
    def since(self, row: OutboxRow) -> datetime:
        """Return the time of the dispatch."""
        return _instant(row)

    @admin.display(description="why")
    def reason(self, row: OutboxRow) -> str:
        """Return the answer to the last try; a dead row has it within its dead letter."""
        if row.dead:
            with suppress(ValueError):
                letter = Letter.from_json(row.why or "", body=b"")
                return letter.error.message if letter.error else letter.reason
        return row.why or ""

    @admin.action(description="Try dead rows again", permissions=["replay"])
    def replay(self, request: HttpRequest, rows: QuerySet[OutboxRow]) -> None:
        """Have dead rows handed over once more, each in its old place."""
        count = rows.filter(dead=True).update(dead=False, why=None, tries=0)
        # What hands over is told at the commit, as of any row.
        transaction.on_commit(wake_all, using=rows.db, robust=True)
        self.message_user(request, f"{count} rows wait to be handed over again.")

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user has `dispatchers.replay_outboxrow`."""
        user: Any = request.user
        return bool(user.has_perm("dispatchers.replay_outboxrow"))


def _instant(row: OutboxRow) -> datetime:
    return datetime.fromtimestamp(row.created_at, UTC)


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """Read-only pages over the dead letters of every configured store; payloads are hidden."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the newest dead letters of each store."""
        stores = [_listed(place, store) for place, store in dead_letter_stores().items()]
        return self._page(request, LIST, stores=stores)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show one dead letter without its payload.

        Raises:
            Http404: No store has it.
        """
        del form_url, extra_context
        number = unquote(object_id)
        found = (store.get(number) for store in dead_letter_stores().values())
        letter = next((each for each in found if each is not None), None)
        if letter is None:
            raise Http404
        return self._page(request, SHOW, rows=_rows(letter))

    def _page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        # Checked here, as these pages replace views of Django's that would do so.
        if not self.has_view_permission(request):
            raise PermissionDenied
        whole = {**self.admin_site.each_context(request), "title": "Dead letters", **context}
        # From a string: a template of a file would be looked for by the project's own loaders.
        return HttpResponse(engines["django"].from_string(template).render(whole, request))


def _listed(place: str, store: Any) -> tuple[str, list[tuple[Letter, str]], str]:
    try:
        letters = list(islice(store.list(limit=PAGE_SIZE), PAGE_SIZE))
    except Exception as exc:  # noqa: BLE001 - one store that is down hides none of the others
        return place, [], f"the store could not be asked: {type(exc).__name__}"
    return place, [(letter, quote(letter.id)) for letter in letters], ""


def _rows(letter: Letter) -> list[tuple[str, object]]:
    """Return the fields of a letter and of its envelope, without the arguments."""
    own = letter.model_dump(exclude={"body", "error"}).items()
    error = letter.error.model_dump(exclude_none=True).items() if letter.error else ()
    try:
        envelope = json.loads(letter.body)
    except ValueError:
        envelope = {}
    # A user's data: leave to see this page is not leave to see those.
    hidden = {"payload", "context"}
    head = [(f"envelope: {key}", text) for key, text in envelope.items() if key not in hidden]
    return [*own, *((f"error: {key}", text) for key, text in error), *head]
