"""The endpoint's own suite, through FastAPI under a real uvicorn."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from dispatchers_fastapi import worker_router
from fastapi import FastAPI

from dispatchers.http import EndpointSettings
from dispatchers.testing.endpoint import EndpointConformance, Send, wire

from .conftest import Servers


class TestFastAPI(EndpointConformance):
    """As a user would serve it."""

    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        app = FastAPI()
        app.include_router(worker_router(settings))
        servers = Servers()
        url = servers(app).base_url
        try:
            yield partial(wire, url.host, url.port)
        finally:
            servers.stop()
            servers.join()
