"""What can be configured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from dispatchers import BackendOptions
from dispatchers.http import PATH

__all__ = ["CloudTasksOptions"]


def _web_address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("should begin with https:// or http://")
    return url


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("should begin with /")
    return path


def _no_true(value: object) -> object:
    if value is True or type(value) is int:
        raise ValueError("should be a service account's e-mail address, or false")
    return value


class CloudTasksOptions(BackendOptions):
    """Options of `cloud_tasks`."""

    project: str = Field(min_length=1)
    """The Google Cloud project of the queues."""
    location: str = Field(min_length=1)
    """Their location: `europe-west1`."""
    queue: str = Field(min_length=1, max_length=100)
    """The queue of requests that name none, by its short name; queues are made beforehand."""
    worker_url: Annotated[str, AfterValidator(_web_address)]
    """Where the worker is; a slash at the end makes no difference."""
    service_account: Annotated[str | Literal[False], AfterValidator(_no_true)]
    """The account in whose name the queue signs a token for the worker, or false for no token."""
    secret: SecretStr | None = None
    """What the worker trusts in place of a token: one of its `secrets`."""
    audience: str | None = Field(default=None, min_length=1)
    """Whom the token is for; None is `worker_url`."""
    path: Annotated[str, AfterValidator(_absolute)] = PATH
    """The path of the worker's endpoint."""
    deadline: float = Field(default=5.0, gt=0, le=3600)
    """Seconds that handing over may take."""
    dispatch_deadline: float = Field(default=600.0, ge=15, le=1800)
    """Seconds that the worker has for one delivery; a task's longer `time_limit` extends it."""
    retry_for: float = Field(default=2_592_000.0, ge=0)
    """Seconds for which the queue tries at least, however many attempts an unreachable worker uses
    up, before it drops work with attempts or a back-off of its own."""
    names: Literal["always", "keyed"] = "always"
    """Which tasks get a name, by which the queue recognises duplicates: all, or those with a key."""
    endpoint: str | None = Field(default=None, pattern=r"^[^/\s]+:\d+$")
    """Host and port of a stand-in, which is spoken to without TLS and without Google's
    credentials; None is Google."""
    token: SecretStr | None = None
    """What a stand-in beyond the loopback wants of its callers."""
    client: Any = None
    """A `CloudTasksClient` of your own, of any transport; None makes one for each process."""
