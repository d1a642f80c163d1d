"""Backends that workflows are tried on: each with options, and a queue of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from .workflow_site import CELERY, DRAMATIQ, SECRET, Site, forget_queues

HERE = ["inline", "thread", "asyncio", "memory"]
"""Work runs in the process that hands it over."""
BROKERS = ["celery/redis", "celery/rabbitmq", "dramatiq/redis", "dramatiq/rabbitmq", "rq"]
WORKERS = ["sqlite", *BROKERS, "cloud_tasks"]
"""Work runs in another process."""
WINDOW = 5.0
"""Seconds after which Redis gives the work of a dead worker to another."""

S = TypeVar("S", bound=Site)


class Backend(NamedTuple):
    """A backend with options for one queue."""

    name: str
    options: dict[str, Any]
    app: str = ""
    """Source of the module `anywhere_app`."""
    endpoint: str = ""
    """The table of the configuration, where work is pushed."""
    service: Any = None
    """The stand-in that pushes it."""


Url = Callable[[str], str]
"""Gives the address of a server by its name, `redis` or `rabbitmq`."""


@contextmanager
def site_on(name: str, folder: Path, url: Url, kind: type[S], **more: Any) -> Generator[S]:
    """Give a site on a backend, without a worker."""
    with opened(name, folder, url) as backend:
        *own, endpoint, service = backend
        site = kind(folder, *own, endpoint=endpoint, **more)
        site.service = service
        try:
            yield site
        finally:
            site.close()


@contextmanager
def opened(name: str, folder: Path, url: Url) -> Generator[Backend]:
    """Give a backend with a queue, and leave nothing of it in servers that others use.

    Args:
        name: One of the lists above.

        folder: For files.

        url: Of the servers.
    """
    with ExitStack() as stack:
        if name in BROKERS:
            yield _brokered(name, url, stack)
        elif name == "cloud_tasks":
            yield _pushed(folder, stack)
        elif name == "sqlite":
            yield Backend(name, {"path": str(folder / "queue.db"), "lease": 3})
        else:
            yield Backend(name, {})


def _brokered(name: str, url: Url, stack: ExitStack) -> Backend:
    library, _, broker = name.partition("/")
    kind, queue = broker or "redis", f"anywhere-{uuid4().hex[:12]}"
    server = url(kind)
    common = {"queue": queue, "deadline": 5.0, "max_deliveries": 50}
    ways: dict[str, tuple[dict[str, Any], str]] = {
        "celery/redis": ({"app": "anywhere_app:app"}, CELERY),
        "dramatiq/redis": ({"broker": "anywhere_app:broker"}, DRAMATIQ),
        "rq": ({"url": server, "lease": WINDOW}, ""),
    }
    own, app = ways.get(name, ({"url": server}, ""))
    stack.callback({"redis": forget_keys, "rabbitmq": forget_queues}[kind], server, queue)
    source = app.format(url=server, queue=queue, window=WINDOW)
    return Backend(library, {**common, **own}, source)


def forget_keys(url: str, queue: str) -> None:
    """Leave nothing of a queue in a Redis that others use."""
    from redis import Redis

    with Redis.from_url(url) as client:
        for name in client.scan_iter(f"*{queue}*", count=1000):
            client.delete(name)


def _pushed(folder: Path, stack: ExitStack) -> Backend:
    import dispatchers_cloud_tasks  # noqa: F401 - before anything imports gRPC

    from .cloud_tasks.harness import ACCOUNT, free_port
    from .cloud_tasks.service import Service

    service = stack.enter_context(Service(folder / "standin"))
    worker = f"http://127.0.0.1:{free_port()}"
    options = {**service.options(f"anywhere-{uuid4().hex[:12]}"), "worker_url": worker}
    service.create_queue(options["queue"])
    endpoint = (
        f'[endpoint]\nworker = true\nsecrets = ["{SECRET}"]\n'
        f'oidc = {{ audience = "{worker}", emails = "{ACCOUNT}", '
        f'issuer = "{service.issuer}", keys_url = "{service.keys_url}" }}\n'
    )
    return Backend("cloud_tasks", options, endpoint=endpoint, service=service)
