"""The worker's endpoint through Django, under a WSGI and an ASGI server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import uvicorn
from dispatchers_django import views
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.test import Client, override_settings
from django.urls import include, path, reverse

from dispatchers import ConfigurationError
from dispatchers.http import PATH, Endpoint, EndpointSettings
from dispatchers.testing.endpoint import EndpointConformance, Send, wire

SECRET = "s" * 32


@contextmanager
def served(settings: EndpointSettings) -> Iterator[None]:
    """The process's endpoint has these settings."""
    views._served[:] = [Endpoint(settings)]
    try:
        yield
    finally:
        views._served.clear()


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class TestWSGI(EndpointConformance):
    """Under wsgiref's server, a thread for each request."""

    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        app = WSGIHandler()
        server = make_server("127.0.0.1", 0, app, ThreadingServer, handler_class=Quiet)
        with server, served(settings):
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield partial(wire, "127.0.0.1", server.server_port)
            server.shutdown()
            thread.join()


class TestASGI(EndpointConformance):
    """Under uvicorn: one server for all cases, as its end takes 0.2 s."""

    port: int
    server: ExitStack

    @classmethod
    def setup_class(cls) -> None:
        cls.server = ExitStack()
        cls.port = cls.server.enter_context(under_uvicorn(ASGIHandler()))

    @classmethod
    def teardown_class(cls) -> None:
        cls.server.close()

    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        with override_settings(ROOT_URLCONF="dispatchers_django.urls_async"), served(settings):
            yield partial(wire, "127.0.0.1", self.port)


@contextmanager
def under_uvicorn(app: Any) -> Iterator[int]:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    waited = threading.Event()
    while not server.started:
        assert thread.is_alive()
        waited.wait(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def push(client: Client, to: str = PATH, **headers: str) -> Any:
    return client.post(to, b"{}", content_type="application/json", headers=headers)


def test_no_token_of_a_form_is_asked_for():
    """A queue has none: the endpoint's own verifiers say whom it trusts."""
    with served(EndpointSettings(worker=True, secrets=(SECRET,))):
        client = Client(enforce_csrf_checks=True)
        stranger, trusted = push(client), push(client, authorization=f"Bearer {SECRET}")

    assert (stranger.status_code, stranger.json()) == (401, {"error": "unauthorized"})
    assert trusted.status_code == 200  # no envelope: acknowledged, with a marker


def test_a_scheduler_sweeps_beside_it():
    """D18: executions of workflows are woken by those who are trusted to push work."""
    with served(EndpointSettings(worker=True, secrets=(SECRET,))):
        stranger = push(Client(), "/dispatchers/sweep")
        trusted = push(Client(), "/dispatchers/sweep", authorization=f"Bearer {SECRET}")

    assert stranger.status_code == 401
    assert (trusted.status_code, trusted.json()) == (200, {"woken": 0})


def test_a_scheduler_relays_beside_it():
    """What is held is handed over for those who are trusted to push work."""
    with served(EndpointSettings(worker=True, secrets=(SECRET,))):
        stranger = push(Client(), "/dispatchers/relay")
        trusted = push(Client(), "/dispatchers/relay", authorization=f"Bearer {SECRET}")

    assert stranger.status_code == 401
    assert (trusted.status_code, trusted.json()) == (200, {"relayed": 0})


def test_it_may_be_included_below_a_prefix():
    """The queue is told the whole path then."""
    urls = type("urls", (), {"urlpatterns": [path("inner/", include("dispatchers_django.urls"))]})
    with (
        override_settings(ROOT_URLCONF=urls),
        served(EndpointSettings(worker=True, secrets=(SECRET,))),
    ):
        where = reverse("dispatchers:run")
        answer = push(Client(), where)

    assert where == f"/inner{PATH}"
    assert answer.status_code == 401


def test_a_process_without_settings_is_no_worker():
    """404."""
    assert push(Client()).status_code == 404


def test_settings_are_followed():
    """As tests override them."""
    endpoint = {"endpoint": {"worker": True, "secrets": [SECRET]}}
    with override_settings(DISPATCHERS_SETTINGS=endpoint):
        worker = push(Client()).status_code

    assert (worker, push(Client()).status_code) == (401, 404)


def test_settings_that_cannot_work_are_told():
    """A worker that trusts no caller does not serve."""
    with override_settings(DISPATCHERS_SETTINGS={"endpoint": {"worker": True}}):
        with pytest.raises(ConfigurationError, match="trusts no caller"):
            views.endpoint()


class Gone(BytesIO):
    """A client that goes away."""

    def read(self, *_: object) -> bytes:
        raise OSError("the client went away")


def request_of(body: Any, **environ: Any) -> WSGIRequest:
    values = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": PATH,
        "CONTENT_TYPE": "application/json",
        "HTTP_AUTHORIZATION": f"Bearer {SECRET}",
        "wsgi.input": body,
    }
    return WSGIRequest({**values, **environ})


def test_half_an_envelope_is_nobody_s():
    """A client that goes away in the midst of the body will come again."""
    with served(EndpointSettings(worker=True, secrets=(SECRET,))):
        gone = views.run(request_of(Gone(), CONTENT_LENGTH="10"))
        short = views.run(request_of(BytesIO(b"{"), CONTENT_LENGTH="10"))

    assert (gone.status_code, short.status_code) == (400, 400)


def test_a_chunked_body_is_read(tmp_path):
    """Django reads nothing without a length; an envelope must not count as empty."""
    letters = f"sqlite:{tmp_path / 'dead.sqlite3'}"
    settings = EndpointSettings(worker=True, secrets=(SECRET,), max_body=1024, dead_letters=letters)
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    with served(settings):
        large = views.run(request_of(BytesIO(b"x" * 1025), **chunked))

    assert large.status_code == 413
