"""The endpoint's own suite, through FastAPI under a real uvicorn."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx
from dispatchers_fastapi import worker_router
from fastapi import FastAPI
from starlette.types import Receive, Scope
from starlette.types import Send as Sending

from dispatchers.http import EndpointSettings
from dispatchers.testing.endpoint import EndpointConformance, Send, wire

from .conftest import Servers


class Switch(FastAPI):
    """The application of the case, on one server for all of them: uvicorn ends in 0.2 s."""

    case: FastAPI

    async def __call__(self, scope: Scope, receive: Receive, send: Sending) -> None:
        if scope["type"] == "http":
            await self.case(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class TestFastAPI(EndpointConformance):
    """As a user would serve it."""

    switch: Switch
    servers: Servers
    url: httpx.URL

    @classmethod
    def setup_class(cls) -> None:
        cls.switch, cls.servers = Switch(), Servers()
        cls.url = cls.servers(cls.switch).base_url

    @classmethod
    def teardown_class(cls) -> None:
        cls.servers.stop()
        cls.servers.join()

    @contextmanager
    def serving(self, settings: EndpointSettings) -> Iterator[Send]:
        self.switch.case = FastAPI()
        self.switch.case.include_router(worker_router(settings))
        yield partial(wire, self.url.host, self.url.port)
