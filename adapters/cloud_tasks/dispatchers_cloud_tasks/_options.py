"""The options of a dispatcher."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from dispatchers import BackendOptions
from dispatchers.http import PATH, EndpointPath, WebAddress

ACCOUNT = re.compile(r"[^@\s]+@[^@\s]+")
CALLS = ("create_task", "batch_create_tasks", "get_queue")
"""Methods of the client that are used."""
QueueId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")]
"""A queue's short name: https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues."""


def _without_query(url: str) -> str:
    if "?" in url:
        raise ValueError("should have no query: the endpoint's path is added to it")
    return url


def _account(value: object) -> object:
    if value is not False and not (isinstance(value, str) and ACCOUNT.fullmatch(value)):
        raise ValueError("should be a service account's e-mail address, or false")
    return value


def _audience(value: str) -> str:
    if any(mark.isspace() or not mark.isprintable() for mark in value):
        raise ValueError("should have no blanks")
    return value


def _not_empty(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or any(mark.isspace() for mark in text):
        raise ValueError("should be printable ASCII without blanks, and not empty")
    return value


def _client(value: object) -> object:
    """Refuse what the first dispatch would find out to be no client."""
    missing = [name for name in CALLS if not callable(getattr(value, name, None))]
    if value is not None and missing:
        raise ValueError(
            f"should be a CloudTasksClient, and has no {missing[0]}(): build it in code, "
            "CloudTasksDispatcher(client=...)"
        )
    return value


Secret = Annotated[SecretStr, AfterValidator(_not_empty)]


class CloudTasksOptions(BackendOptions):
    """Options of `cloud_tasks`."""

    project: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]*$")
    """The Google Cloud project of the queues."""
    location: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")
    """Their location: `europe-west1`."""
    queue: QueueId  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues] - required
    """The queue of requests that name none, by its short name; queues are made beforehand."""
    worker_url: Annotated[WebAddress, AfterValidator(_without_query)]
    """The worker's address; a slash at the end makes no difference."""
    service_account: Annotated[str | Literal[False], AfterValidator(_account)]
    """The account in whose name the queue signs a token for the worker, or false for no token."""
    secret: Secret | None = None
    """A secret in place of a token: one of the worker's `secrets`."""
    audience: Annotated[str, Field(min_length=1), AfterValidator(_audience)] | None = None
    """The token's audience; None is `worker_url`."""
    path: EndpointPath = PATH
    """The path of the worker's endpoint."""
    deadline: float = Field(default=5.0, gt=0, le=3600)
    """Seconds that handing over may take."""
    dispatch_deadline: float = Field(default=600.0, ge=15, le=1800)
    """Seconds that the worker has for one delivery; a task's longer `time_limit` extends it."""
    retry_for: float = Field(default=2_592_000.0, ge=0)
    """Seconds for which the queue tries at least, however many attempts an unreachable worker uses
    up, before it drops work with attempts or a back-off of its own."""
    names: Literal["always", "keyed"] = "always"
    """Work that the queue knows by a name, to recognise duplicates: all, or what has a key."""
    endpoint: str | None = Field(default=None, pattern=r"^[^/\s]+:\d+$")
    """Host and port of a stand-in, which is spoken to without TLS and without Google's
    credentials; None is Google."""
    token: Secret | None = None
    """The token that a stand-in beyond the loopback wants of its callers."""
    client: Annotated[Any, AfterValidator(_client)] = None
    """A `CloudTasksClient` of your own, of any transport; None makes one for each process."""

    @property
    def token_audience(self) -> str:
        """The audience that the queue signs tokens for."""
        return self.audience or self.worker_url
