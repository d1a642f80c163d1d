"""Hand work over to whatever queue a deployment has: one typed call, one typed answer.

The core is loaded when the first of its names is asked for: a package that uses nothing but
`dispatchers.implementation` does without it, and without pydantic.
"""

from typing import TYPE_CHECKING

# Loaded at once: a child that is forked while the core is imported has that to repair.
import dispatchers._runtime.fork as _fork  # noqa: F401  # pyright: ignore[reportUnusedImport]

if TYPE_CHECKING:
    from dispatchers._config.api import build, check, close_all, configure, get_dispatcher, override
    from dispatchers._config.registry import register
    from dispatchers._dispatch.async_base import BaseAsyncDispatcher
    from dispatchers._dispatch.base import BaseDispatcher
    from dispatchers._dispatch.protocol import Dispatcher, Sent
    from dispatchers._dispatch.publishing import PublishingDispatcher
    from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
    from dispatchers._errors import (
        ConfigurationError,
        ErrorCategory,
        MissingDependencyError,
        NotDurableError,
        RegistrationError,
        RejectedError,
        StepError,
    )
    from dispatchers._models.capabilities import Capabilities
    from dispatchers._models.claim import Claim, ClaimInfo, IdempotencyStore
    from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
    from dispatchers._models.failures import classify
    from dispatchers._models.http_status import by_http_status
    from dispatchers._models.options import BackendOptions
    from dispatchers._models.outcome import Action, Discard, Outcome, Reason, Retry, RunFailure
    from dispatchers._models.request import Backoff, DispatchRequest
    from dispatchers._models.response import (
        DispatchError,
        DispatchFailure,
        DispatchResponse,
        DispatchResponses,
        DispatchStatus,
        DispatchUnknownError,
        FailedResponses,
        PassedOver,
    )
    from dispatchers._models.stats import Stats, queue_stats
    from dispatchers._payload.errors import DeclarationError, PayloadError
    from dispatchers._runtime.heartbeat import Heartbeat
    from dispatchers._tasks.task import Task, catalogue, declare, task
    from dispatchers._worker.runner import (
        Run,
        RunSettings,
        arun_envelope,
        current_run,
        run_envelope,
    )
    from dispatchers._worker.settings import run_settings

__all__ = [
    "Action",
    "BackendOptions",
    "Backoff",
    "BaseAsyncDispatcher",
    "BaseDispatcher",
    "Capabilities",
    "Claim",
    "ClaimInfo",
    "ConfigurationError",
    "DeadLetter",
    "DeadLetterStore",
    "DeclarationError",
    "Discard",
    "DispatchError",
    "DispatchFailure",
    "DispatchRequest",
    "DispatchResponse",
    "DispatchResponses",
    "DispatchStatus",
    "DispatchUnknownError",
    "Dispatcher",
    "ErrorCategory",
    "FailedResponses",
    "Heartbeat",
    "IdempotencyStore",
    "MissingDependencyError",
    "NotDurableError",
    "Outcome",
    "PassedOver",
    "PayloadError",
    "PublishingDispatcher",
    "Reason",
    "RegistrationError",
    "RejectedError",
    "Retry",
    "Run",
    "RunFailure",
    "RunSettings",
    "Sent",
    "Stats",
    "StepError",
    "Task",
    "Worker",
    "WorkerOptions",
    "arun_envelope",
    "build",
    "by_http_status",
    "catalogue",
    "check",
    "classify",
    "close_all",
    "configure",
    "current_run",
    "declare",
    "get_dispatcher",
    "override",
    "queue_stats",
    "register",
    "run_envelope",
    "run_settings",
    "task",
]

_MODULES = {
    "_config.api": "build check close_all configure get_dispatcher override",
    "_config.registry": "register",
    "_dispatch.async_base": "BaseAsyncDispatcher",
    "_dispatch.base": "BaseDispatcher",
    "_dispatch.protocol": "Dispatcher Sent",
    "_dispatch.publishing": "PublishingDispatcher",
    "_dispatch.worker_protocol": "Worker WorkerOptions",
    "_errors": (
        "ConfigurationError ErrorCategory MissingDependencyError NotDurableError "
        "RegistrationError RejectedError StepError"
    ),
    "_models.capabilities": "Capabilities",
    "_models.claim": "Claim ClaimInfo IdempotencyStore",
    "_models.dead_letter": "DeadLetter DeadLetterStore",
    "_models.failures": "classify",
    "_models.http_status": "by_http_status",
    "_models.options": "BackendOptions",
    "_models.outcome": "Action Discard Outcome Reason Retry RunFailure",
    "_models.request": "Backoff DispatchRequest",
    "_models.response": (
        "DispatchError DispatchFailure DispatchResponse DispatchResponses DispatchStatus "
        "DispatchUnknownError FailedResponses PassedOver"
    ),
    "_models.stats": "Stats queue_stats",
    "_payload.errors": "DeclarationError PayloadError",
    "_runtime.heartbeat": "Heartbeat",
    "_tasks.task": "Task catalogue declare task",
    "_worker.runner": "Run RunSettings arun_envelope current_run run_envelope",
    "_worker.settings": "run_settings",
}
"""The names above by the module that defines them, for the first that is asked for."""

if not TYPE_CHECKING:  # type checkers would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load the core."""
        if not name.startswith("_"):  # `__path__` and its like, asked for by import and inspect
            from importlib import import_module

            for module, names in _MODULES.items():
                found = import_module(f"{__name__}.{module}")
                for each in names.split():  # one that a test has replaced stays replaced
                    globals().setdefault(each, getattr(found, each))
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


del TYPE_CHECKING
