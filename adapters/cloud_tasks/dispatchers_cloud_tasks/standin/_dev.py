"""The stand-in as `dispatchers dev` starts it, with the settings that lead to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, validate_call

from ._misbehaviour import Misbehaviour
from ._server import StandIn

__all__ = ["CloudTasksDev"]

Port = Annotated[int, Field(ge=0, le=65535)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+(_[A-Za-z0-9]+)*$")]
"""A part of a variable's name that a shell exports."""
QUEUE = re.compile(r"[A-Za-z0-9-]{1,100}")


class CloudTasksDev:
    """The stand-in with a queue.

    Args:
        folder: Where its file is kept.

        host: What to listen on; beyond the loopback only with a `token`.

        port: gRPC's port; 0 picks a free one.

        http_port: The port of keys and control; 0 picks a free one.

        queues: The queues to make, with commas between; the first one is the dispatcher's.

        worker_url: Where the worker will be.

        target: The target whose dispatcher leads here.

        alias: The dispatcher's alias.

        project: The project's name.

        location: The location's name.

        service_account: In whose name tokens are signed.

        token: What callers must bring.

        min_backoff: Seconds before the second attempt.

        misbehave: What to do wrong, as a JSON object: the fields of `Misbehaviour`.

    Raises:
        ValueError: An option does not fit.

        OSError: A port is taken.
    """

    @validate_call(config=ConfigDict(coerce_numbers_to_str=True))  # `project=7` is read as JSON
    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: Port = 8123,
        http_port: Port = 8124,
        queues: str = "default",
        worker_url: Annotated[str, Field(pattern="^https?://.")] = "http://127.0.0.1:8000",
        target: Variable = "dev",
        alias: Variable = "default",
        project: Annotated[str, Field(pattern="^[A-Za-z0-9:.-]+$")] = "dev",
        location: Annotated[str, Field(pattern="^[A-Za-z0-9-]+$")] = "local",
        service_account: str = "worker@dev.iam.gserviceaccount.com",
        token: str | None = None,
        min_backoff: Annotated[float, Field(ge=0, le=3600)] = 0.1,
        misbehave: Misbehaviour | None = None,
    ) -> None:
        self._names = _split(queues)
        self._worker_url = worker_url
        self._target, self._alias = target, alias
        self._account, self._token = service_account, token
        self._standin = StandIn(
            folder,
            host=host,
            port=port,
            http_port=http_port,
            project=project,
            location=location,
            token=token,
        )
        for name in self._names:
            self._standin.create_queue(name, min_backoff=min_backoff)
        self._standin.misbehave(misbehave or Misbehaviour())

    @property
    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """For every process, and for the worker."""
        return {"every process": self._dispatcher(), "the worker": self._endpoint()}

    def _dispatcher(self) -> dict[str, str]:
        standin = self._standin
        options = {
            "backend": "cloud_tasks",
            "project": standin.project,
            "location": standin.location,
            "queue": self._names[0],
            "worker_url": self._worker_url,
            "service_account": self._account,
            "endpoint": standin.address,
        }
        if self._token is not None:
            options["token"] = self._token
        place = f"DISPATCHERS_TARGETS__{self._target}__{self._alias}".upper()
        named = {f"{place}__{name.upper()}": value for name, value in options.items()}
        return {"DISPATCHERS_TARGET": self._target, **named}

    def _endpoint(self) -> dict[str, str]:
        return {
            "DISPATCHERS_ENDPOINT__WORKER": "true",
            "DISPATCHERS_ENDPOINT__OIDC__AUDIENCE": self._worker_url,
            "DISPATCHERS_ENDPOINT__OIDC__EMAILS": self._account,
            "DISPATCHERS_ENDPOINT__OIDC__ISSUER": self._standin.issuer,
            "DISPATCHERS_ENDPOINT__OIDC__KEYS_URL": self._standin.jwks_url,
        }

    def start(self) -> None:
        """Listen and deliver."""
        self._standin.start()

    def stop(self) -> None:
        """Finish what is under way."""
        self._standin.stop()


def _split(names: str) -> list[str]:
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found:
        raise ValueError("queues names none")
    for name in found:
        if not QUEUE.fullmatch(name):
            raise ValueError(f"queues: {name!r} is not a name: letters, digits and - only")
    return found
