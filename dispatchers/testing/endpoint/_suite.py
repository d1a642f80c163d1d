"""`EndpointConformance`: the suite that every integration of the endpoint inherits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dispatchers.http import EndpointSettings
from dispatchers.testing.journal import Journal

from ._form import ReadsLittle
from ._issuer import Issuer
from ._outcomes import SaysWhatBecame
from ._scene import Scene, Send
from ._trust import TrustsFew

__all__ = ["EndpointConformance"]


class EndpointConformance(ReadsLittle, TrustsFew, SaysWhatBecame):
    """Everything that can be judged from outside, over HTTP.

    ::

        class TestAcme(EndpointConformance):
            @contextmanager
            def serving(self, settings: EndpointSettings) -> Iterator[Send]:
                with running_server(acme_app(Endpoint(settings))) as address:
                    yield partial(send, address)

    The server runs in this process, on a thread of its own, so that both see the same tasks and
    stores, and it answers two requests at once. `send` takes headers as pairs; `wire` is one.
    """

    def serving(self, settings: EndpointSettings) -> AbstractContextManager[Send]:
        """Serve an endpoint with these settings; gives what sends a request to it."""
        raise NotImplementedError("write serving(settings): see EndpointConformance")

    @pytest.fixture
    def serve(self) -> Callable[[EndpointSettings], AbstractContextManager[Send]]:
        """`serving`, for the cases."""
        return self.serving

    @pytest.fixture
    def issuer(self) -> Iterator[Issuer]:
        """An issuer of tokens, and its key server."""
        with Issuer() as issuer:
            yield issuer

    @pytest.fixture
    def scene(self, issuer: Issuer, tmp_path: Path) -> Scene:
        """Return the scene of a case."""
        return Scene(issuer, Journal(tmp_path / "journal"))
