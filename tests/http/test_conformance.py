"""The endpoint as a function, and as plain ASGI and WSGI applications under real servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

from dispatchers.http import Endpoint, EndpointSettings, asgi_app, handle, wsgi_app
from dispatchers.testing.endpoint import EndpointConformance, Send, wire


class TestFunction(EndpointConformance):
    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        yield Endpoint(settings).handle


class TestPureFunction(EndpointConformance):
    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        yield partial(handle, settings=settings)


class TestCoroutine(EndpointConformance):
    """`ahandle`, on one event loop for all requests of a case."""

    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        endpoint = Endpoint(settings)
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()

            def send(*request):
                return asyncio.run_coroutine_threadsafe(endpoint.ahandle(*request), loop).result(60)

            yield send

            loop.call_soon_threadsafe(loop.stop)
            thread.join()


class Switch:
    """The application of the case, on one server for all of them: uvicorn ends in 0.2 s."""

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class TestASGI(EndpointConformance):
    """Under uvicorn."""

    @classmethod
    def setup_class(cls):
        cls.switch, cls.server = Switch(), ExitStack()
        cls.port = cls.server.enter_context(under_uvicorn(cls.switch, lifespan="off"))

    @classmethod
    def teardown_class(cls):
        cls.server.close()

    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        self.switch.app = asgi_app(settings)
        yield partial(wire, "127.0.0.1", self.port)


class TestWSGI(EndpointConformance):
    """Under wsgiref's server, a thread for each request."""

    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        server = make_server(
            "127.0.0.1", 0, wsgi_app(settings), ThreadingServer, handler_class=Quiet
        )
        with server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield partial(wire, "127.0.0.1", server.server_port)
            server.shutdown()
            thread.join()


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def under_uvicorn(app, **more) -> Iterator[int]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none", **more)
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
