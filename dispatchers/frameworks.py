"""What the glue to a framework needs besides: its settings as a source, and finding a dispatcher.

::

    use_settings(lambda: getattr(settings, "DISPATCHERS", None), "settings.DISPATCHERS")
    ...
    reload()  # when they changed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ._batch import iterated
from ._catalogue import catalogue
from ._check import Problem, problems
from ._contract import BaseDispatcher
from ._instances import reload, resolve, settings_of_task
from ._refusal import unsent
from ._report import told
from ._request import DispatchRequest
from ._response import DispatchResponse
from ._sources import set_framework_source
from ._verdict import without_contact

__all__ = [
    "Problem",
    "collected",
    "dispatcher_for",
    "problems",
    "refused",
    "reload",
    "use_settings",
]


def use_settings(source: Callable[[], Mapping[str, object] | None] | None, name: str) -> None:
    """Let a framework's settings take part: above the file, below the environment.

    Args:
        source: Gives the settings, in the shape of `dispatchers.toml`, whenever they are read;
            None of it, or from it, takes no part.

        name: What errors call it, `settings.DISPATCHERS` for one.
    """
    set_framework_source(source, name)
    reload()


def dispatcher_for(task: str) -> BaseDispatcher:
    """The dispatcher that a task goes through: the host's word by its name, else the task's own.

    Args:
        task: The registered name; one that is not known goes through `default`.

    Raises:
        ConfigurationError: There is none, or it is configured wrongly.
    """
    known = catalogue.find(task)
    own = known.policy.dispatcher if known else None
    host = settings_of_task(known.name if known else task).get("dispatcher")
    return resolve(host if isinstance(host, str) else own)


def collected(
    requests: Iterable[DispatchRequest],
) -> tuple[list[DispatchRequest], Exception | None]:
    """What a `dispatch_many` was given, and why there is no more of it, if that was no end (C1)."""
    found: list[DispatchRequest] = []
    try:
        for each in iterated(requests):
            found.append(each)  # noqa: PERF402 - what came before it raised counts
    except Exception as exc:  # noqa: BLE001 - the iterable itself may raise (C1)
        return found, exc
    return found, None


def refused(alias: str, request: DispatchRequest | None, exc: Exception) -> DispatchResponse:
    """The answer where there is no dispatcher that could give it (C1), told to hooks and log.

    Args:
        alias: What was asked for.

        request: What could not be handed over; None of what is no request.

        exc: Why; a `ConfigurationError` or a `RejectedError` is `REJECTED`.
    """
    status, error = without_contact(exc)
    return told(unsent(alias, "", request, status, error, exc, 0.0))
