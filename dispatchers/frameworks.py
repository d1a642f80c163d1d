"""Helpers for framework glue: settings as a source, dispatchers by task.

::

    use_settings(lambda: getattr(settings, "DISPATCHERS", None), "settings.DISPATCHERS")
    ...
    reload()  # when they changed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dispatchers._config.api import problems, reload, resolve, settings_of_task, state
from dispatchers._config.files import set_framework_source
from dispatchers._config.isolation import keep_in_process
from dispatchers._dispatch.admission import iterated
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.error_mapping import without_contact
from dispatchers._dispatch.reporting import told, unsent
from dispatchers._errors import nearest
from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.problem import Problem
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse
from dispatchers._stores.loading import dead_letters
from dispatchers._tasks.overrides import misspelt_overrides
from dispatchers._tasks.task import catalogue

__all__ = [
    "Problem",
    "collected",
    "dead_letter_stores",
    "dispatcher_for",
    "keep_in_process",
    "misspelt_overrides",
    "nearest",
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


def dead_letter_stores() -> dict[str, DeadLetterStore]:
    """Return every configured store of dead letters, by alias; the endpoint's as `[endpoint]`.

    Raises:
        ConfigurationError: The configuration cannot be read, or a store cannot be opened.
    """
    configuration = state.snapshot.configuration
    named = {alias: resolve(alias) for alias in sorted(state.snapshot.aliases())}
    every = {alias: _letters_of(each) for alias, each in named.items()}
    spec = configuration.endpoint().dead_letters if configuration.settings.endpoint else None
    every["[endpoint]"] = None if spec is None else dead_letters(spec)
    found: dict[str, DeadLetterStore] = {}
    for place, store in every.items():
        # By identity: aliases that share a store would list its letters twice.
        if store is not None and all(store is not known for known in found.values()):
            found[place] = store
    return found


def _letters_of(dispatcher: object) -> DeadLetterStore | None:
    """Return the store of a dispatcher; objects that only dispatch have none."""
    return dispatcher._dead_letters() if isinstance(dispatcher, BaseDispatcher) else None


def dispatcher_for(task: str) -> BaseDispatcher:
    """Return the dispatcher of a task, by the host's override or its own.

    Args:
        task: The registered name; one that is not known goes through `default`.

    Raises:
        ConfigurationError: There is none, or it is configured wrongly.
    """
    known = catalogue.find(task)
    own = known.policy.dispatcher if known else None
    # Under the present name: a host that overrides a task need not know its former ones.
    host = settings_of_task(known.name if known else task).get("dispatcher")
    return resolve(host if isinstance(host, str) else own)


def collected(
    requests: Iterable[DispatchRequest],
) -> tuple[list[DispatchRequest], Exception | None]:
    """Collect the requests of a batch, and the error that ended it (C1)."""
    found: list[DispatchRequest] = []
    try:
        for each in iterated(requests):
            found.append(each)  # noqa: PERF402 - what came before it raised counts
    except Exception as exc:  # noqa: BLE001 - the iterable itself may raise (C1)
        return found, exc
    return found, None


def refused(alias: str, request: DispatchRequest | None, exc: Exception) -> DispatchResponse:
    """Return and report the answer of a missing dispatcher (C1).

    Args:
        alias: What was asked for.

        request: What could not be handed over; None where it was not a request.

        exc: Why; a `ConfigurationError` or a `RejectedError` is `REJECTED`.
    """
    status, error = without_contact(exc)
    return told(unsent(alias, "", request, status, error, exc, 0.0))
