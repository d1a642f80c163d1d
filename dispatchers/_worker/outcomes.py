"""From what happened in a run to what must follow from it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from dispatchers._dispatch.error_mapping import place_of, safe_text, type_name
from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import ErrorCategory, RejectedError, stand_in
from dispatchers._models.base import build
from dispatchers._models.failures import (
    TRANSIENT,
    Classification,
    classification,
    failure_kind,
    nearest_class,
)
from dispatchers._models.outcome import Action, Discard, Outcome, Reason, Retry, RunFailure
from dispatchers._models.response import DispatchFailure, DispatchStatus
from dispatchers._runtime.log import say
from dispatchers._worker.decode import Unfit, skewed
from dispatchers._worker.frames import frames_of, place_in_task
from dispatchers._worker.run import DEFAULTS

if TYPE_CHECKING:
    from dispatchers._worker.run import Run, RunSettings

__all__ = [
    "HandBack",
    "after_failure",
    "failed",
    "log_end",
    "permanent",
    "sent",
    "succeeded",
    "unfit",
]

DONE = Action.DONE


SUCCEEDED = Reason.SUCCEEDED


SETTLED = (Reason.EXPIRED, Reason.DUPLICATE)


class HandBack(Exception):  # noqa: N818 - carries an outcome from a handler of ours to its end
    """The delivery cannot be run here now; it is given back, and no attempt is counted.

    Args:
        reason: Why.

        message: For people and the dead letter.

        after: Seconds until it comes again; None hands it back for `skew_grace`, then it is dead.
    """

    def __init__(self, reason: Reason, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.after = after


def succeeded(run: Run) -> Outcome:
    """The handler returned."""
    envelope = run.envelope
    return build(
        Outcome,
        {
            "action": DONE,
            "reason": SUCCEEDED,
            "after": 0.0,
            "attempt": run.attempt,
            "max_attempts": envelope.get("max_attempts") or run.task.max_attempts,
            "task": run.task.name,
            "request_id": envelope["id"],
            "elapsed": monotonic() - run.started,
            "error": None,
        },
        None if run.result is None else {"_result": run.result},
    )


def after_failure(run: Run, exc: BaseException, settings: RunSettings) -> Outcome:
    """The handler raised `exc`."""
    try:
        return _after_failure(run, exc, settings)
    except Exception:  # noqa: BLE001 - C9: code of the exception's own decides nothing
        return _after_failure(run, stand_in(exc), settings)


def _after_failure(run: Run, exc: BaseException, settings: RunSettings) -> Outcome:
    if isinstance(exc, HandBack):
        return _handed_back(run, exc, settings)
    if isinstance(exc, Discard) or _among(exc, run.task.discard_on):
        return _outcome(run, Action.DONE, Reason.DISCARDED)
    # Giving up because the worker stops costs no attempt: the work did not fail.
    if isinstance(exc, Retry) and run.stopping:
        return _outcome(run, Action.RETURN, Reason.STOPPING)
    reason = _reason(run, exc)
    after, action = _after(run, exc, reason), _action(run, reason, settings)
    outcome = _outcome(run, action, reason, after, exc, settings)
    if not settings.quiet:
        _log(outcome)
    return outcome


def _handed_back(run: Run, exc: HandBack, settings: RunSettings) -> Outcome:
    if exc.after is not None:
        outcome = _outcome(run, Action.RETURN, exc.reason, exc.after)
        return outcome.model_copy(update={"error": RunFailure(message=str(exc))})
    skew = skewed(run.body, run.deliveries, settings, exc.reason, str(exc))
    return unfit(skew, run.attempt, quiet=settings.quiet)


def permanent(run: Run, exc: BaseException, settings: RunSettings) -> Outcome:
    """The run failed with `exc`, whatever attempts are left."""
    action = _action(run, Reason.PERMANENT, settings)
    outcome = _outcome(run, action, Reason.PERMANENT, 0.0, exc, settings)
    if not settings.quiet:
        _log(outcome)
    return outcome


def _reason(run: Run, exc: BaseException) -> Reason:
    if not _worth_another(run, exc):
        return Reason.PERMANENT
    return Reason.FAILED if run.attempt < run.max_attempts else Reason.EXHAUSTED


def _worth_another(run: Run, exc: BaseException) -> bool:
    """`retry_on` is the whole list where it is given; otherwise the classes decide."""
    # Asked for by the handler: no list of classes overrides that.
    if isinstance(exc, Retry):
        return True
    if run.task.retry_on:
        return _among(exc, run.task.retry_on)
    return _classified(exc).permanence == "transient"


def _classified(exc: BaseException) -> Classification:
    """Return the classification; a function of the application's that raises decides nothing."""
    try:
        return classification(exc)
    except Exception as error:  # noqa: BLE001 - the application's code
        say(logging.WARNING, "classifying a failure raised %s", type_name(error))
        return TRANSIENT


def _among(exc: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    return bool(classes) and nearest_class(type(exc), classes) is not None


def _action(run: Run, reason: Reason, settings: RunSettings) -> Action:
    if reason is Reason.FAILED:
        return Action.RETRY
    # The task knows best, then the worker's configuration; losing nothing is the default.
    policy = run.task.on_handler_error or settings.on_handler_error or "raise"
    return Action.DONE if policy == "log" else Action.DEAD


def _after(run: Run, exc: BaseException, reason: Reason) -> float:
    if reason is not Reason.FAILED:
        return 0.0
    if isinstance(exc, Retry) and exc.after is not None:
        # A handler may compute it from a clock, and be late.
        return max(exc.after, 0.0)
    # The envelope first: it has what this dispatch asked for.
    backoff = run.envelope.get("backoff") or run.task.backoff
    wait: float = backoff.after(run.attempt)
    # A server that says when to come again knows better than our back-off, if it says later.
    return max(wait, _classified(exc).after or 0.0)


def _outcome(
    run: Run,
    action: Action,
    reason: Reason,
    after: float = 0.0,
    exc: BaseException | None = None,
    settings: RunSettings = DEFAULTS,
) -> Outcome:
    values = {
        "action": action,
        "reason": reason,
        "after": after,
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "task": run.task.name,
        "request_id": run.envelope["id"],
        "elapsed": monotonic() - run.started,
        "error": None if exc is None else _failure(exc, settings),
    }
    return build(Outcome, values, None if exc is None else {"_exception": exc})


def _failure(exc: BaseException, settings: RunSettings) -> RunFailure:
    return RunFailure(
        kind=failure_kind(exc),
        exception_type=type_name(exc),
        message=safe_text(exc, ()),
        where=place_in_task(exc),
        frames=frames_of(exc) if settings.tracebacks else (),
    )


def _log(outcome: Outcome) -> None:
    """Type and place only: an exception's words may quote the payload (C4)."""
    error = outcome.error
    again = f"; again in {outcome.after:.1f} s" if outcome.action is Action.RETRY else ""
    say(
        logging.WARNING if again else logging.ERROR,
        "run of %s failed (%s, attempt %d of %d): %s%s%s (request %s, %.3f s)%s",
        outcome.task,
        outcome.reason.value,
        outcome.attempt,
        outcome.max_attempts,
        error.exception_type if error else None,
        f" at {error.where}" if error and error.where else "",
        again,
        outcome.request_id,
        outcome.elapsed,
        "".join(f"\n  {frame}" for frame in error.frames) if error else "",
        extra=_facts(outcome),
    )


def log_end(outcome: Outcome) -> None:
    """Log that a run has ended without a failure."""
    say(
        logging.INFO,
        "run of %s %s (attempt %d of %d, request %s, %.3f s)",
        outcome.task,
        outcome.reason.value,
        outcome.attempt,
        outcome.max_attempts,
        outcome.request_id,
        outcome.elapsed,
        extra=_facts(outcome),
    )


def _facts(outcome: Outcome) -> dict[str, object]:
    """Return what a record has beside its words, for logs that programs read."""
    return {
        "request_id": outcome.request_id,
        "task": outcome.task,
        "attempt": outcome.attempt,
        "reason": outcome.reason.value,
        "seconds": round(outcome.elapsed, 6),
    }


def unfit(why: Unfit, attempt: int = 1, *, quiet: bool = False) -> Outcome:
    """The envelope was not run."""
    if why.reason in SETTLED:
        action = Action.DONE
    else:
        action = Action.DEAD if why.after is None else Action.RETURN
    if not quiet:
        _log_unfit(why, action)
    error = None if why.reason in SETTLED else RunFailure(message=why.message)
    return Outcome(
        action=action,
        reason=why.reason,
        after=why.after or 0.0,
        attempt=attempt,
        task=why.task,
        request_id=why.request_id,
        error=error,
    )


def _log_unfit(why: Unfit, action: Action) -> None:
    say(
        logging.ERROR if action is Action.DEAD else logging.WARNING,
        "%s is not run here (%s): %s",
        why.task or "a message",
        why.reason.value,
        why.message,
        extra={"request_id": why.request_id},
    )


# Answers of dispatchers that run the work in the call.


NOT_RUN = {
    Reason.UNKNOWN_TASK: ErrorCategory.NOT_FOUND,
    Reason.INVALID_ARGUMENTS: ErrorCategory.INVALID,
    Reason.NO_ENVELOPE: ErrorCategory.INVALID,
    Reason.EXPIRED: ErrorCategory.INVALID,
    Reason.IN_FLIGHT: ErrorCategory.CONFLICT,
    Reason.CONFLICT: ErrorCategory.CONFLICT,
    Reason.STORE_UNAVAILABLE: ErrorCategory.UNAVAILABLE,
    Reason.NO_JOURNAL: ErrorCategory.CONFIGURATION,
}


def sent(outcome: Outcome, task_id: str | None = None) -> Sent:
    """Return the answer to a dispatch whose work ran in the call.

    Args:
        outcome: The outcome of the run.

        task_id: The backend's own id of the work.

    Raises:
        RejectedError: The work did not run.
    """
    if outcome.reason in (Reason.SUCCEEDED, Reason.DISCARDED):
        return Sent(task_id, DispatchStatus.EXECUTED)
    if outcome.reason is Reason.DUPLICATE:
        return Sent(task_id, DispatchStatus.DUPLICATE)
    error = outcome.error
    if outcome.reason in NOT_RUN:
        message = error.message if error and error.message else f"not run: {outcome.reason.value}"
        # Nothing ran: the caller may hand it to another backend. A claim ends, or runs out.
        again = True if outcome.reason is Reason.IN_FLIGHT else None
        raise RejectedError(NOT_RUN[outcome.reason], message, retryable=again)
    # Place and type, not the words: those may quote the payload.
    place = f" at {error.where}" if error and error.where else ""
    return _failed(
        outcome.task or "",
        task_id,
        error.exception_type if error else None,
        f"{place}, attempt {outcome.attempt} of {outcome.max_attempts}",
        outcome.exception,
    )


def failed(task: str, exc: BaseException, task_id: str | None = None) -> Sent:
    """Return the answer to a dispatch of a backend's own task that raised in the call."""
    place = place_of(exc)
    return _failed(task, task_id, type_name(exc), f" at {place}" if place else "", exc)


def _failed(
    task: str, task_id: str | None, kind: str | None, where: str, exc: BaseException | None
) -> Sent:
    values = {
        "category": ErrorCategory.HANDLER,
        "retryable": False,
        "exception_type": kind,
        "message": f"task {task!r} failed with {kind}{where}",
    }
    error = build(DispatchFailure, values)
    return Sent(task_id, DispatchStatus.FAILED, error=error, exception=exc)
