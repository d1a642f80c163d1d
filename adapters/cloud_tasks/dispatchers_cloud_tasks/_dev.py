"""What `dispatchers dev` starts: the stand-in, with the settings that lead to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .standin import Misbehaviour, StandIn

__all__ = ["CloudTasksDev"]


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

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8123,
        http_port: int = 8124,
        queues: str = "default",
        worker_url: str = "http://127.0.0.1:8000",
        target: str = "dev",
        alias: str = "default",
        project: str = "dev",
        location: str = "local",
        service_account: str = "worker@dev.iam.gserviceaccount.com",
        token: str | None = None,
        min_backoff: float = 0.1,
        misbehave: Mapping[str, object] | None = None,
    ) -> None:
        orders = Misbehaviour.model_validate(misbehave or {})
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
        self._standin.misbehave(orders)

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


def _split(names: str | Sequence[str]) -> list[str]:
    parts = names.split(",") if isinstance(names, str) else names
    found = [name.strip() for name in parts if name.strip()]
    if not found:
        raise ValueError("queues names none")
    return found
