"""What `manage.py check` and the admin say of an outbox."""

from __future__ import annotations

import time
from typing import Any

import pytest
from dispatchers_django.checks import check_settings, check_tables
from dispatchers_django.models import OutboxRow
from django.contrib import admin
from django.test import override_settings

from .test_stores import admin_client


def settings(store: str = "django:default", to: str = "broker", **more: Any) -> Any:
    outbox = {"BACKEND": "outbox", "OPTIONS": {"to": to, "store": store}}
    aliases = {"default": outbox, "broker": {"BACKEND": "null"}}
    return override_settings(DISPATCHERS=aliases, **more)


class NotThere:
    """A router that makes no tables of ours in `other`."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        del hints
        return False if (db, app_label) == ("other", "dispatchers") else None


class ToOther:
    """A router that writes the outbox elsewhere."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        del hints
        return "other" if model is OutboxRow else None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"store": "django:defalt"}, "no database 'defalt'.*did you mean 'default'"),
        ({"to": "brokr"}, "'brokr'.*did you mean 'broker'"),
        ({"store": "djago:default"}, "djago"),
    ],
)
def test_mistakes_are_told_with_the_nearest_name(given, said):
    """C12: what is configured is checked before anything is dispatched."""
    with settings(**given):
        found = check_settings(None)

    assert [each.id for each in found] == ["dispatchers.E001"]
    assert __import__("re").search(said, found[0].msg)


def test_what_is_right_passes():
    """Also the database's check, once the tables are there."""
    with settings():
        assert check_settings(None) == []
        assert check_tables(None, databases=["default"]) == []


def test_a_router_that_keeps_the_tables_away_is_an_error():
    """No migration could ever make them."""
    with settings("django:other", DATABASE_ROUTERS=[NotThere()]):
        found = check_settings(None)

    assert [each.id for each in found] == ["dispatchers.E005"]
    assert "DATABASE_ROUTERS" in found[0].msg


def test_tables_that_are_not_there_yet_are_a_warning():
    """By `check --database`, and by `migrate`, which goes on and makes them."""
    with settings("django:empty"):
        quiet = check_tables(None, databases=["default"])
        found = check_tables(None, databases=["default", "empty"])

    assert quiet == []
    assert [each.id for each in found] == ["dispatchers.W005"]
    assert "migrate dispatchers --database empty" in found[0].msg
    assert not found[0].is_serious()


def test_the_routers_are_asked_where_no_database_is_named():
    """`django:`."""
    from dispatchers import get_dispatcher

    with settings("django:", DATABASE_ROUTERS=[ToOther()]):
        assert get_dispatcher().store.alias == "other"


@pytest.fixture
def rows() -> list[OutboxRow]:
    values = {"alias": "default", "lane": "mails", "task": "shop.send", "deduplicate": False}
    values |= {"body": b"secret arguments", "created_at": time.time() - 3600.0}
    made = [
        OutboxRow(request_id="waits", tries=3, why="unavailable: down", dead=False, **values),
        OutboxRow(request_id="dead", tries=0, why="too_large: 1 MiB", dead=True, **values),
    ]
    OutboxRow.objects.bulk_create(made)
    return made


def test_the_admin_lists_rows_without_their_envelopes(rows):
    """By lane, age, tries and reason."""
    with admin_client() as client:
        listed = client.get("/admin/dispatchers/outboxrow/")
        found = client.get("/admin/dispatchers/outboxrow/", {"dead__exact": "1"})
        shown = client.get(f"/admin/dispatchers/outboxrow/{rows[0].pk}/change/")

    assert [each.status_code for each in (listed, found, shown)] == [200, 200, 200]
    said = (b"shop.send", b"mails", b"1\xc2\xa0hour", b"unavailable: down", b"too_large")
    assert all(each in listed.content for each in said)
    assert b"waits" not in found.content
    assert b"unavailable: down" in shown.content
    assert b"secret" not in listed.content + shown.content
    assert b'name="_save"' not in shown.content


@pytest.mark.parametrize(
    ("permissions", "dead"),
    [(("view_outboxrow", "replay_outboxrow"), 0), (("view_outboxrow",), 1)],
)
def test_dead_rows_are_tried_again_by_those_who_may(rows, permissions, dead):
    """An action, with a permission of its own."""
    chosen = {"action": "replay", "_selected_action": [str(each.pk) for each in rows]}
    with admin_client(*permissions) as client:
        client.post("/admin/dispatchers/outboxrow/", chosen)

    assert OutboxRow.objects.filter(dead=True).count() == dead
    assert OutboxRow.objects.get(request_id="waits").why == "unavailable: down"


def test_the_leaders_are_not_for_people():
    """Which process hands over is of no use to them."""
    from dispatchers_django.models import OutboxLeader

    assert not admin.site.is_registered(OutboxLeader)


def test_a_row_that_is_tried_again_leaves(send, use):
    """By itself, once the action is committed; the reason was shown in words."""
    from dispatchers.testing import RecordingDispatcher
    from dispatchers.testing.processes import wait_until

    broker = RecordingDispatcher(alias="broker")
    broker.fail_next(category="too_large")
    outbox = {"backend": "outbox", "to": "broker", "store": "django:default"}
    use(default=outbox, broker=broker)
    with admin_client() as client:
        send.dispatch(1)
        wait_until(OutboxRow.objects.filter(dead=True).exists, "it never died")
        (row,) = OutboxRow.objects.all()
        listed = client.get("/admin/dispatchers/outboxrow/")
        chosen = {"action": "replay", "_selected_action": [str(row.pk)]}
        client.post("/admin/dispatchers/outboxrow/", chosen)
        wait_until(lambda: broker.requests != [], "it never left")

    assert b">rejected (too_large): a test asked for this failure<" in listed.content
    assert broker.requests[0].id == row.request_id
