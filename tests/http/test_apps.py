"""What is particular to the plain ASGI and WSGI applications."""

from __future__ import annotations

import asyncio
import io
import socket

import pytest

from dispatchers import ConfigurationError
from dispatchers.http import PATH, EndpointSettings, asgi_app, wsgi_app
from dispatchers.http._request import known_headers
from dispatchers.testing.endpoint import Scene

from .test_conformance import under_uvicorn


@pytest.mark.parametrize("make", [asgi_app, wsgi_app])
def test_an_app_that_cannot_work_is_not_made(make):
    """Where the application is loaded, not with the first request."""
    with pytest.raises(ConfigurationError):
        make(EndpointSettings(worker=True))


def asgi(app, messages, *, scope=None):
    """What an application sends when it receives these messages."""
    rest = iter(messages)
    sent = []

    async def receive():
        return next(rest)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope or {}, receive, send))
    return sent


def http_scope(scene: Scene, **more):
    headers = [(n.lower().encode(), v.encode()) for n, v in scene.headers()]
    return {"type": "http", "method": "POST", "path": PATH, "headers": headers, **more}


def part(body: bytes, more: bool):
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_put_together(scene):
    """As servers deliver it."""
    messages = [part(scene.body[:9], True), part(b"", True), part(scene.body[9:], False)]

    sent = asgi(asgi_app(scene.settings()), messages, scope=http_scope(scene))

    assert sent[0]["status"] == 204
    assert scene.journal.texts == ["ran"]


def test_a_body_that_never_ends_is_not_read_to_its_end(scene):
    """413 a little beyond `max_body`."""
    messages = (part(b"x" * 1000, True) for _ in range(10))

    sent = asgi(asgi_app(scene.settings(max_body=2048)), messages, scope=http_scope(scene))

    assert sent[0]["status"] == 413
    assert len(list(messages)) > 5


def test_what_is_no_worker_reads_no_body(scene):
    """404 after the first part."""
    messages = (part(b"x", True) for _ in range(10))

    sent = asgi(asgi_app(scene.settings(worker=False)), messages, scope=http_scope(scene))

    assert sent[0]["status"] == 404
    assert len(list(messages)) == 9


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_client_that_goes_away_leaves_nothing(scene, parts):
    """Half an envelope is neither run nor a dead letter."""
    messages = [*[part(scene.body, True)] * parts, {"type": "http.disconnect"}]

    assert asgi(asgi_app(scene.settings()), messages, scope=http_scope(scene)) == []
    assert scene.journal.texts == []


def test_the_lifespan_is_acknowledged(scene):
    """Servers wait for that."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    sent = asgi(asgi_app(scene.settings()), messages, scope={"type": "lifespan"})

    assert [each["type"] for each in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_a_websocket_is_closed(scene):
    """There is nothing to talk about."""
    sent = asgi(asgi_app(scene.settings()), [], scope={"type": "websocket"})

    assert sent[0]["type"] == "websocket.close"


@pytest.mark.parametrize("cut", [True, False])
def test_a_chunked_body_over_the_wire(scene, cut):
    """Run if it is whole; a client that hangs up in its midst leaves nothing."""
    head = "".join(f"{n}: {v}\r\n" for n, v in scene.headers())
    start = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{head}\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(scene.body), scene.body)
    with under_uvicorn(asgi_app(scene.settings())) as port:
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            client.sendall(start.encode() + chunk)
            if not cut:
                client.sendall(b"0\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 204")

    assert scene.journal.texts == ([] if cut else ["ran"])


def wsgi(app, scene, body, **environ):
    told = []
    given = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": PATH,
        "CONTENT_TYPE": "application/json",
        "HTTP_AUTHORIZATION": dict(scene.headers())["Authorization"],
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    rest = b"".join(app(given, lambda status, headers: told.append(status)))
    return told[0], rest


def test_a_body_without_a_length_is_read_where_the_server_ends_it(scene):
    """`wsgi.input_terminated` says that there is an end; otherwise nobody knows one."""
    app = wsgi_app(scene.settings())

    ended = wsgi(app, scene, scene.body, **{"wsgi.input_terminated": True})
    unknown = wsgi(app, scene, scene.body)

    assert ended[0] == "204 No Content"
    assert unknown == ("200 OK", b'{"outcome":"no_envelope"}')


def test_a_body_shorter_than_announced_is_not_judged(scene):
    """400: the rest may come with the next try, so there is no dead letter."""
    answer = wsgi(wsgi_app(scene.settings()), scene, b"{", CONTENT_LENGTH="9")

    assert answer == ("400 Bad Request", b'{"error":"incomplete body"}')


def test_a_mounted_app_knows_its_whole_path(scene):
    """What a router has taken off counts."""
    path = {"SCRIPT_NAME": "/dispatchers", "PATH_INFO": "/run", "CONTENT_LENGTH": "2"}

    assert wsgi(wsgi_app(scene.settings()), scene, b"{}", **path)[0] == "200 OK"


def test_a_wsgi_app_may_be_mounted_at_its_own_path_under_a_prefix(scene):
    """SCRIPT_NAME has a prefix and a part of the endpoint's path, or the whole of it."""
    part_of = {"SCRIPT_NAME": "/api/dispatchers", "PATH_INFO": "/run", "CONTENT_LENGTH": "2"}
    whole = {"SCRIPT_NAME": f"/api{PATH}", "PATH_INFO": "", "CONTENT_LENGTH": "2"}

    assert wsgi(wsgi_app(scene.settings()), scene, b"{}", **part_of)[0] == "200 OK"
    assert wsgi(wsgi_app(scene.settings()), scene, b"{}", **whole)[0] == "200 OK"


def test_headers_may_come_in_any_form():
    """A mapping in any case, or pairs; what stands twice is one value."""
    pairs = [("AUTHORIZATION", "a"), ("authorization", "b"), ("X-Other", "c")]

    assert known_headers(pairs) == {"authorization": "a, b"}
    assert known_headers({"Content-Type": "x"}) == {"content-type": "x"}


@pytest.mark.parametrize(
    ("path", "root"),
    [
        (f"/queue{PATH}", "/queue"),  # Starlette's mount, uvicorn --root-path
        (f"/queue/{PATH}", "/queue/"),
        (PATH, "/queue"),  # a server that has taken the prefix off
        (f"/a/b{PATH}", "/a/b"),
        (PATH, PATH),
        (f"/api{PATH}", f"/api{PATH.rpartition('/')[0]}"),  # mounted at a part of its own path
        (f"/api{PATH}", f"/api{PATH}"),
        (f"/api{PATH}/", f"/api{PATH}"),  # as Starlette's mounts are called
    ],
)
def test_an_asgi_app_may_be_mounted_under_a_prefix(scene, path, root):
    """The path below `root_path` is the endpoint's."""
    scope = http_scope(scene, root_path=root) | {"path": path}

    sent = asgi(asgi_app(scene.settings()), [part(scene.body, False)], scope=scope)

    assert sent[0]["status"] == 204


@pytest.mark.parametrize(
    ("path", "root"),
    [("/queue/other", "/queue"), (f"/queue/other{PATH}", "/queue"), (f"{PATH}/other", PATH)],
)
def test_an_asgi_app_answers_for_no_other_path(scene, path, root):
    """A mount does not make other paths the endpoint's."""
    scope = http_scope(scene, root_path=root) | {"path": path}

    sent = asgi(asgi_app(scene.settings()), [part(scene.body, False)], scope=scope)

    assert sent[0]["status"] == 404


def test_a_wsgi_app_may_be_mounted_under_a_prefix(scene):
    """SCRIPT_NAME is the mount's; what is below it is the endpoint's path."""
    mounted = {"SCRIPT_NAME": "/queue", "PATH_INFO": PATH, "CONTENT_LENGTH": "2"}

    assert wsgi(wsgi_app(scene.settings()), scene, b"{}", **mounted)[0] == "200 OK"


def test_it_works_below_uvicorn_s_root_path_and_starlette_s_mount(scene):
    """Over the wire, one within the other."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/queue", asgi_app(scene.settings()))])
    lines = "".join(f"{n}: {v}\r\n" for n, v in scene.headers())
    statuses = []
    for to, root in ((f"/queue{PATH}", ""), (f"/queue{PATH}", "/outer")):
        with (
            under_uvicorn(app, root_path=root) as port,
            socket.create_connection(("127.0.0.1", port), 60) as client,
        ):
            head = f"POST {to} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(scene.body)}\r\n{lines}"
            client.sendall(head.encode() + b"\r\n" + scene.body)
            statuses.append(client.recv(100)[:12])

    assert statuses == [b"HTTP/1.1 204"] * 2
