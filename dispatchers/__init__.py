"""Hand work over to whatever queue a deployment has: one typed call, one typed answer."""

from ._async_contract import BaseAsyncDispatcher
from ._beats import Heartbeat
from ._capabilities import Capabilities
from ._catalogue import catalogue
from ._classify import classify
from ._contract import BaseDispatcher, Dispatcher, Sent
from ._dead import DeadLetter, DeadLetterStore
from ._errors import (
    ConfigurationError,
    DispatchError,
    DispatchUnknownError,
    ErrorCategory,
    MissingDependencyError,
    RegistrationError,
    RejectedError,
)
from ._idempotency import Claim, IdempotencyStore
from ._instances import check, close_all, configure, get_dispatcher, override
from ._options import BackendOptions
from ._outcome import Action, Discard, Outcome, Reason, Retry, RunFailure
from ._payload_errors import DeclarationError, PayloadError
from ._registry import register
from ._request import Backoff, DispatchRequest
from ._response import DispatchFailure, DispatchResponse, DispatchResponses, DispatchStatus
from ._run import Run, RunSettings, arun_envelope, current_run, run_envelope
from ._stores import run_settings
from ._task import Task, declare, task
from ._worker import Worker, WorkerOptions

__all__ = [
    "Action",
    "BackendOptions",
    "Backoff",
    "BaseAsyncDispatcher",
    "BaseDispatcher",
    "Capabilities",
    "Claim",
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
    "Heartbeat",
    "IdempotencyStore",
    "MissingDependencyError",
    "Outcome",
    "PayloadError",
    "Reason",
    "RegistrationError",
    "RejectedError",
    "Retry",
    "Run",
    "RunFailure",
    "RunSettings",
    "Sent",
    "Task",
    "Worker",
    "WorkerOptions",
    "arun_envelope",
    "catalogue",
    "check",
    "classify",
    "close_all",
    "configure",
    "current_run",
    "declare",
    "get_dispatcher",
    "override",
    "register",
    "run_envelope",
    "run_settings",
    "task",
]
