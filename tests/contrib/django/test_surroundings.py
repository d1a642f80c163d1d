"""The endpoint under each middleware and setting that Django ships."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dispatchers_django import checks, views
from django.contrib.auth.models import User
from django.db import connections
from django.test import AsyncClient, Client, override_settings

from dispatchers import task
from dispatchers.http import PATH, EndpointSettings
from dispatchers.stores import dead_letters

SECRET = "s" * 32
EVERYTHING = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.common.BrokenLinkEmailsMiddleware",
]


@contextmanager
def served(**more: Any) -> Iterator[None]:
    settings = EndpointSettings(worker=True, secrets=(SECRET,), **more)
    views._served[:] = [views._Endpoint(settings)]
    try:
        yield
    finally:
        views._served.clear()


def pushed(body: bytes, secret: str = SECRET, client: Any = None) -> Any:
    return (client or Client(enforce_csrf_checks=True)).post(
        PATH,
        body,
        content_type="application/json",
        headers={"authorization": f"Bearer {secret}"},
    )


def _encoded(request: Any) -> bytes:
    fields = {"deadline", "deduplicate"}
    return request.model_dump_json(exclude=fields, exclude_none=True).encode()


@contextmanager
def atomic_requests(*aliases: str) -> Iterator[None]:
    settings = [connections.settings[alias] for alias in aliases]
    for each in settings:
        each["ATOMIC_REQUESTS"] = True
    try:
        yield
    finally:
        for each in settings:
            each["ATOMIC_REQUESTS"] = False


@pytest.fixture
def write() -> Any:
    """A task that writes a row, and raises if it is told to."""

    @task(name="shop.write", max_attempts=3)
    def write(name: str, fails: bool = False, using: str = "default") -> None:
        User.objects.using(using).create(username=name)
        if fails:
            raise RuntimeError

    return write


def names(using: str = "default") -> list[str]:
    return list(User.objects.using(using).values_list("username", flat=True))


@pytest.mark.parametrize("middleware", [[each] for each in EVERYTHING[:2]] + [EVERYTHING])
def test_a_push_runs_under_every_middleware(send, ran, middleware):
    """No login is asked for, no form token, no slash; the answer is the endpoint's own."""
    with override_settings(MIDDLEWARE=middleware, APPEND_SLASH=True), served():
        answer, stranger = pushed(_encoded(send.request(1))), pushed(b"{}", "wrong")

    assert (answer.status_code, ran) == (204, [1])
    assert (stranger.status_code, stranger.json()) == (401, {"error": "unauthorized"})


def test_the_async_view_runs_under_every_middleware(send, ran):
    """As under WSGI."""
    with (
        override_settings(MIDDLEWARE=EVERYTHING, ROOT_URLCONF="dispatchers_django.urls_async"),
        served(),
    ):
        request = pushed(_encoded(send.request(1)), client=AsyncClient(enforce_csrf_checks=True))
        answer = asyncio.run(request)

    assert (answer.status_code, ran) == (204, [1])


def apushed(body: bytes) -> Any:
    with override_settings(ROOT_URLCONF="dispatchers_django.urls_async"):
        return asyncio.run(pushed(body, client=AsyncClient()))


@pytest.mark.parametrize("push", [pushed, apushed])
def test_a_failed_run_leaves_no_row_with_atomic_requests(
    write: Any, push: Callable[[bytes], Any]
) -> None:
    """The run is rolled back, on each database that has it, and succeeds with what it wrote."""
    with served(), atomic_requests("default", "other"):
        failed = push(_encoded(write.request("ada", fails=True)))
        elsewhere = push(_encoded(write.request("bob", fails=True, using="other")))
        good = push(_encoded(write.request("eve")))

    assert [each.status_code for each in (failed, elsewhere, good)] == [500, 500, 204]
    assert (names(), names("other")) == (["eve"], [])


def test_a_dead_letter_survives_the_rollback(write: Any, tmp_path: Any) -> None:
    """C9: what failed for good is in the store, although the run was rolled back."""
    store = f"sqlite:{tmp_path / 'dead.sqlite3'}"
    request = write.options(max_attempts=1).request("ada", fails=True)

    with served(dead_letters=store), atomic_requests("default"):
        answer = pushed(_encoded(request))

    assert answer.status_code == 200
    assert [letter.id for letter in dead_letters(store).list()] == [request.id]
    assert names() == []


def test_a_run_is_claimed_and_done_with_what_it_wrote(write: Any) -> None:
    """C10: a delivery that failed runs again, one that succeeded does not."""
    store = "dispatchers_django.stores:IdempotencyStore"
    failing = _encoded(write.options(idempotency_key="k").request("ada", fails=True))
    good = _encoded(write.options(idempotency_key="k").request("ada"))

    with served(idempotency=store), atomic_requests("default"):
        statuses = [pushed(each).status_code for each in (failing, good, good)]

    assert statuses == [500, 204, 200]
    assert names() == ["ada"]


def said(**settings: Any) -> list[str]:
    given = {"endpoint": {"worker": True, "secrets": [SECRET]}}
    with override_settings(DISPATCHERS_SETTINGS=given, **settings):
        return [each.msg for each in checks.check_deployment(None)]


def test_a_redirect_to_tls_is_told_before_the_deployment():
    """Pushes to a proxy that ends TLS would be answered 301."""
    silent = said(SECURE_SSL_REDIRECT=True, SECURE_PROXY_SSL_HEADER=("HTTP_X", "https"))
    exempt = said(SECURE_SSL_REDIRECT=True, SECURE_REDIRECT_EXEMPT=["^dispatchers/"])
    told = said(SECURE_SSL_REDIRECT=True)

    assert any("SECURE_PROXY_SSL_HEADER" in each for each in told)
    assert not any("SECURE_PROXY_SSL_HEADER" in each for each in [*silent, *exempt])


def test_a_redirect_to_www_is_told_before_the_deployment():
    """Pushes to another host name would be answered 301."""
    common = ["django.middleware.common.CommonMiddleware"]

    assert any("PREPEND_WWW" in each for each in said(PREPEND_WWW=True, MIDDLEWARE=common))
    assert not any("PREPEND_WWW" in each for each in said(PREPEND_WWW=True, MIDDLEWARE=[]))
    assert not any("PREPEND_WWW" in each for each in said(MIDDLEWARE=common))


def test_a_worker_without_its_url_is_told_before_the_deployment():
    """Nothing leads to the endpoint: every push would be 404."""
    empty = type("urls", (), {"urlpatterns": []})

    assert any("no URL" in each for each in said(ROOT_URLCONF=empty))
    assert not any("no URL" in each for each in said())
