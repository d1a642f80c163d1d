"""C10: an idempotency store in the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from dispatchers_django.models import Claim as Row
from dispatchers_django.stores import IdempotencyStore
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from django.test import RequestFactory
from django.utils import timezone

from dispatchers import Reason, RunSettings, arun_envelope, override, run_envelope, task
from dispatchers.stores import Watch, idempotency

SPEC = "dispatchers_django.stores:IdempotencyStore"


@pytest.fixture
def store() -> IdempotencyStore:
    return IdempotencyStore()


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def states(*claims: Any) -> list[str]:
    return [each.state for each in claims]


def test_a_key_is_claimed_once(store):
    """By one owner; who already has it gets it again."""
    first, again, other = (store.claim("shop.send k", each, 60.0) for each in ("a", "a", "b"))

    assert states(first, again, other) == ["claimed", "claimed", "busy"]
    assert 0 < other.retry_after <= 60


def test_what_is_done_is_remembered(store):
    """For as long as it was said."""
    store.claim("shop.send k", "a", 60.0)

    assert store.complete("shop.send k", "a", 3600.0)
    assert store.claim("shop.send k", "b", 60.0).state == "done"

    Row.objects.update(done_until=timezone.now() - timedelta(seconds=1))
    assert store.claim("shop.send k", "b", 60.0).state == "claimed"


def test_what_is_released_can_run_again(store):
    """At once."""
    store.claim("shop.send k", "a", 60.0)

    assert store.release("shop.send k", "a")
    assert store.claim("shop.send k", "b", 60.0).state == "claimed"


def test_only_the_owner_changes_a_claim(store):
    """Nor is one changed that is complete."""
    store.claim("shop.send k", "a", 60.0)

    assert not store.renew("shop.send k", "b", 60.0)
    assert not store.complete("shop.send k", "b", 60.0)
    assert not store.release("shop.send k", "b")
    assert store.complete("shop.send k", "a", 60.0)
    assert not store.renew("shop.send k", "a", 60.0)
    assert not store.release("shop.send k", "a")


def test_a_claim_that_is_renewed_is_never_taken(store):
    """A lease is a promise about renewal, not about time."""
    clock = Clock()
    other = IdempotencyStore()
    other._watch = Watch(clock)
    store.claim("shop.send k", "a", 60.0)

    found = []
    for _ in range(10):
        found.append(other.claim("shop.send k", "b", 60.0).state)
        clock.now += 59.0
        assert store.renew("shop.send k", "a", 60.0)

    assert set(found) == {"busy"}


def test_a_claim_of_an_owner_who_is_gone_is_taken(store):
    """Once an observer has seen no renewal for its length; the former owner is told."""
    clock = Clock()
    other = IdempotencyStore()
    other._watch = Watch(clock)
    store.claim("shop.send k", "a", 60.0)

    busy = other.claim("shop.send k", "b", 60.0)
    clock.now += 60.0
    taken = other.claim("shop.send k", "b", 60.0)

    assert states(busy, taken) == ["busy", "claimed"]
    assert not store.renew("shop.send k", "a", 60.0)
    assert not store.complete("shop.send k", "a", 60.0)


def test_a_claim_that_is_renewed_at_the_last_moment_is_kept(store):
    """Between the look of whoever waits for it, and its taking."""
    store.claim("shop.send k", "a", 60.0)
    other = IdempotencyStore()

    class Late(Watch):
        def left(self, *_: object) -> float:
            store.renew("shop.send k", "a", 60.0)
            return 0.0

    other._watch = Late()

    assert other.claim("shop.send k", "b", 60.0).state == "busy"
    assert store.complete("shop.send k", "a", 60.0)


def test_of_many_at_once_one_claims_it():
    """Whoever comes first."""
    stores = [IdempotencyStore() for _ in range(8)]
    start = threading.Barrier(8)

    def claim(number: int) -> str:
        start.wait()
        try:
            return stores[number].claim("shop.send k", str(number), 60.0).state
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(claim, range(8)))

    assert sorted(found) == ["busy"] * 7 + ["claimed"]


def test_of_many_who_take_over_one_does():
    """The others find it busy."""
    IdempotencyStore().claim("shop.send k", "gone", 60.0)
    clock = Clock()
    stores = [IdempotencyStore() for _ in range(8)]
    for number, each in enumerate(stores):
        each._watch = Watch(clock)
        each.claim("shop.send k", str(number), 60.0)
    clock.now += 60.0
    start = threading.Barrier(8)

    def claim(number: int) -> str:
        start.wait()
        try:
            return stores[number].claim("shop.send k", str(number), 60.0).state
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(claim, range(8)))

    assert sorted(found) == ["busy"] * 7 + ["claimed"]


def test_keys_may_be_long_and_odd(store):
    """A key is told from one that begins like it, whatever it is written in."""
    long = "shop.send " + "ключ" * 200

    assert store.claim(long, "a", 60.0).state == "claimed"
    assert store.claim(long + "!", "b", 60.0).state == "claimed"
    assert Row.objects.values_list("task", flat=True).distinct().get() == "shop.send"


def test_what_is_forgotten_is_taken_away(store):
    """A few at a time, so that no claim waits for it."""
    old = timezone.now() - timedelta(days=1)
    Row.objects.bulk_create(
        Row(key=str(number), task="t", owner="o", ttl=60.0, done_until=old) for number in range(120)
    )

    store.claim("shop.send k", "a", 60.0)

    assert Row.objects.filter(done_until__lt=timezone.now()).count() == 20


def test_a_run_in_a_transaction_claims_within_it(store):
    """The claim is rolled back with what the run wrote."""
    with transaction.atomic():
        claimed = store.claim("shop.send k", "a", 60.0)
        renewed: list[bool] = []
        thread = threading.Thread(
            target=lambda: renewed.append(store.renew("shop.send k", "a", 60.0))
        )
        thread.start()
        thread.join()
        completed = store.complete("shop.send k", "a", 60.0)
        transaction.set_rollback(True)

    assert (claimed.state, renewed, completed) == ("claimed", [True], True)
    assert store.claim("shop.send k", "b", 60.0).state == "claimed"


def test_an_error_of_the_store_does_not_end_a_transaction_around_it(store, monkeypatch):
    """C1: whoever dispatched inside it, inline, goes on with it."""
    store.claim("shop.send k", "a", 60.0)

    with transaction.atomic():
        with monkeypatch.context() as patch:
            patch.setattr(Row._meta, "db_table", "no_such_table")
            with pytest.raises(OperationalError):
                store.claim("shop.send other", "a", 60.0)
        found = store.claim("shop.send k", "b", 60.0)

    assert found.state == "busy"


def test_a_connection_is_left_as_it_was_found(store):
    """The heartbeat's thread, and that of an async task's claim, keep none open."""
    connections["default"].close()
    store.claim("shop.send k", "a", 60.0)
    closed = connections["default"].connection is None

    connections["default"].ensure_connection()
    store.renew("shop.send k", "a", 60.0)

    assert closed
    assert connections["default"].connection is not None


@pytest.mark.parametrize("way", ["sync", "async"])
def test_work_that_was_done_is_not_done_again(way, store):
    """Through the worker's own code."""
    runs: list[int] = []

    @task(name="shop.count")
    def count() -> None:
        runs.append(1)

    from dispatchers.testing import RecordingDispatcher

    with override(default=(recording := RecordingDispatcher())):
        count.options(idempotency_key="k").dispatch()
    body = recording.dispatched[0].body
    settings = RunSettings(idempotency=store)

    def run() -> Any:
        if way == "sync":
            return run_envelope(body, settings=settings)
        return asyncio.run(arun_envelope(body, settings=settings))

    first, second = run(), run()

    assert (first.reason, second.reason) == (Reason.SUCCEEDED, Reason.DUPLICATE)
    assert runs == [1]


def test_it_is_named_in_the_configuration(send, ran, use):
    """`idempotency` of any dispatcher."""
    use(default={"backend": "inline", "idempotency": SPEC})
    once = send.options(idempotency_key="k")

    first, second = once.dispatch(1), once.dispatch(1)

    assert isinstance(idempotency(SPEC), IdempotencyStore)
    assert [first.status.value, second.status.value] == ["executed", "duplicate"]
    assert ran == [1]


def test_the_migration_is_complete():
    """`makemigrations` has nothing to add."""
    call_command("makemigrations", "dispatchers", check=True, dry_run=True, verbosity=0)


def test_the_admin_s_page_is_read_only(store):
    """A claim that somebody deletes may run twice."""
    from dispatchers_django.admin import ClaimAdmin

    page = ClaimAdmin(Row, admin.site)
    request = RequestFactory().get("/")
    request.user = AnonymousUser()

    assert not page.has_add_permission(request)
    assert not page.has_change_permission(request)
    assert not page.has_delete_permission(request)


@contextmanager
def admin_client(*permissions: str) -> Iterator[Any]:
    """A client of Django's own admin, logged in as a superuser, or with these permissions."""
    from django.contrib.auth.models import Permission, User
    from django.test import Client, override_settings
    from django.urls import path

    user = User.objects.create_user("root", is_staff=True, is_superuser=not permissions)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    urls = type("urls", (), {"urlpatterns": [path("admin/", admin.site.urls)]})
    middleware = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=middleware, TEMPLATES=TEMPLATES):
        client = Client()
        client.force_login(user)
        yield client


def test_the_admin_lists_claims(store):
    """By key, status and time; found by the key as it was given."""
    store.claim("shop.send k", "a", 60.0)
    store.claim("shop.send other", "b", 60.0)
    store.complete("shop.send other", "b", 60.0)
    name = sha256(b"shop.send k").hexdigest()
    with admin_client() as client:
        listed = client.get("/admin/dispatchers/claim/")
        found = client.get("/admin/dispatchers/claim/", {"q": "k"})
        shown = client.get(f"/admin/dispatchers/claim/{name}/change/")

    assert (listed.status_code, shown.status_code) == (200, 200)
    assert all(text in listed.content for text in (b"shop.send", b"running", b"done"))
    assert name.encode() in found.content
    assert sha256(b"shop.send other").hexdigest().encode() not in found.content
    assert b'name="_save"' not in shown.content


def test_the_admin_lists_dead_letters_of_every_store(tmp_path, send):
    """Those of a dispatcher and of the endpoint; never their arguments."""
    from dispatchers import DeadLetter, override
    from dispatchers.stores import dead_letters

    stores = [f"sqlite:{tmp_path / name}.sqlite3" for name in ("own", "endpoint")]
    secret = send.request(7_654_321)
    body = secret.model_dump_json(exclude={"deadline", "deduplicate"}).encode()
    for number, spec in enumerate(stores):
        letter = DeadLetter(id=f"letter/{number}", task="shop.send", reason="exhausted", body=body)
        dead_letters(spec).add(letter)
    settings = {
        "targets": {"t": {"default": {"backend": "thread", "dead_letters": stores[0]}}},
        "endpoint": {"dead_letters": stores[1]},
    }
    with override(settings, target="t"), admin_client() as client:
        listed = client.get("/admin/dispatchers/deadletter/")
        shown = client.get("/admin/dispatchers/deadletter/letter_2F1/change/")
        missing = client.get("/admin/dispatchers/deadletter/nope/change/")

    assert [each.status_code for each in (listed, shown, missing)] == [200, 200, 404]
    assert all(each in listed.content for each in (b"letter/0", b"letter/1", b"[endpoint]"))
    assert b"exhausted" in shown.content
    assert b"7654321" not in listed.content + shown.content


@pytest.mark.parametrize(("permission", "status"), [("view_deadletter", 200), ("view_claim", 403)])
def test_dead_letters_want_a_permission(permission, status):
    """`dispatchers.view_deadletter`."""
    with admin_client(permission) as client:
        assert client.get("/admin/dispatchers/deadletter/").status_code == status


TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
