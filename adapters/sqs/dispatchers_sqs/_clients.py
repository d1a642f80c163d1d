"""The official clients of one process: one for each time limit, made when first needed."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.loaders import Loader, create_loader
from botocore.session import Session

from dispatchers.net import ForkGate, PerProcess, bounded

from ._errors import before_contact
from ._options import SQSOptions

gate = ForkGate(2.0)
"""Keeps forks out while a client is made, two seconds at most."""


class Clients:
    """Clients by time limit, which boto3 sets when a client is made and not for a call.

    Args:
        options: The adapter's options.

        connections: Connections that each keeps.
    """

    def __init__(self, options: SQSOptions, connections: int) -> None:
        self._options = options
        self._connections = connections
        self._session = PerProcess[Session](gate)
        self._clients = PerProcess[dict[float, Any]](gate)
        self._lock = threading.RLock()
        _loader()  # once in a process, and not within the deadline of its first dispatch

    def of(self, timeout: float) -> Any:
        """Return a client whose calls take `timeout` seconds at most, and half of them at least.

        Raises:
            RejectedError: There are no credentials, no region, or not within `timeout` seconds.
        """
        limit = 2.0 ** math.floor(math.log2(max(timeout, 0.01)))
        if (found := self._clients.get(dict).get(limit)) is not None:
            return found
        try:
            # Bounded: credentials may come from a service of the machine that does not answer.
            return bounded(lambda: self._begun(limit), timeout=timeout, to="credentials for SQS")
        except (BotoCoreError, ValueError) as exc:  # a bare ValueError: an endpoint that is no URL
            raise before_contact(exc) from exc

    def _begun(self, limit: float) -> Any:
        session, clients = self._session.get(_session), self._clients.get(dict)
        with gate.entered(), self._lock:  # a session makes one client at a time
            if limit not in clients:
                clients[limit] = self._made(session, limit)
            return clients[limit]

    def _made(self, session: Session, limit: float) -> Any:
        config = Config(
            connect_timeout=limit,
            read_timeout=limit,
            retries={"total_max_attempts": 1, "mode": "standard"},  # nothing is repeated unasked
            max_pool_connections=self._connections,
        )
        region, endpoint = self._options.region, self._options.endpoint
        return session.create_client("sqs", region, endpoint_url=endpoint, config=config)

    def close(self) -> None:
        """Close the connections of this process."""
        for client in (self._clients.take() or {}).values():
            client.close()


@cache
def _loader() -> Loader:
    """Return a reader that has read the service's description, once."""
    loader = create_loader()
    session = Session()
    session.register_component("data_loader", loader)
    # A client that is not used: what is wrong with the surroundings is told by one that is.
    with suppress(BotoCoreError):
        session.create_client(
            "sqs",
            "us-east-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 - no secret
        ).close()
    return loader


def new_session() -> Session:
    """Return a session of the official client: what boto3's own stands on."""
    session = Session()
    session.register_component("data_loader", _loader())
    return session


def _session() -> Session:
    session = new_session()
    if session.get_credentials() is None:
        raise NoCredentialsError
    return session
