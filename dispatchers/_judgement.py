"""From what happened in a run to what must follow from it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from ._classify import failure_kind, nearest_class, permanence
from ._log import say
from ._model import build
from ._opening import Unfit
from ._outcome import Action, Discard, Outcome, Reason, Retry, RunFailure
from ._verdict import place_of, safe_text, type_name

if TYPE_CHECKING:
    from ._current import Run, RunSettings

__all__ = ["after_failure", "succeeded", "unfit"]

DONE = Action.DONE
SUCCEEDED = Reason.SUCCEEDED
SETTLED = (Reason.EXPIRED, Reason.DUPLICATE)


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
    )


def after_failure(run: Run, exc: BaseException, settings: RunSettings) -> Outcome:
    """The handler raised `exc`."""
    if isinstance(exc, Discard) or _among(exc, run.task.discard_on):
        return _outcome(run, Action.DONE, Reason.DISCARDED)
    if isinstance(exc, Retry) and run.stopping:
        return _outcome(run, Action.RETURN, Reason.STOPPING)
    reason = _reason(run, exc)
    outcome = _outcome(run, _action(run, reason, settings), reason, _after(run, exc, reason), exc)
    if not settings.quiet:
        _log(outcome)
    return outcome


def _reason(run: Run, exc: BaseException) -> Reason:
    if not _worth_another(run, exc):
        return Reason.PERMANENT
    return Reason.FAILED if run.attempt < run.max_attempts else Reason.EXHAUSTED


def _worth_another(run: Run, exc: BaseException) -> bool:
    """`retry_on` is the whole list where it is given; otherwise the classes decide."""
    if isinstance(exc, Retry):
        return True
    if run.task.retry_on:
        return _among(exc, run.task.retry_on)
    return permanence(exc) == "transient"


def _among(exc: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    return bool(classes) and nearest_class(type(exc), classes) is not None


def _action(run: Run, reason: Reason, settings: RunSettings) -> Action:
    if reason is Reason.FAILED:
        return Action.RETRY
    policy = run.task.on_handler_error or settings.on_handler_error or "raise"
    return Action.DONE if policy == "log" else Action.DEAD


def _after(run: Run, exc: BaseException, reason: Reason) -> float:
    if reason is not Reason.FAILED:
        return 0.0
    if isinstance(exc, Retry) and exc.after is not None:
        return max(exc.after, 0.0)
    backoff = run.envelope.get("backoff") or run.task.backoff
    return backoff.after(run.attempt)


def _outcome(
    run: Run,
    action: Action,
    reason: Reason,
    after: float = 0.0,
    exc: BaseException | None = None,
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
        "error": None if exc is None else _failure(exc),
    }
    return build(Outcome, values, None if exc is None else {"_exception": exc})


def _failure(exc: BaseException) -> RunFailure:
    return RunFailure(
        kind=failure_kind(exc),
        exception_type=type_name(exc),
        message=safe_text(exc, ()),
        where=place_of(exc),
    )


def _log(outcome: Outcome) -> None:
    """Type and place only: an exception's words may quote the payload (C4)."""
    error = outcome.error
    again = f"; again in {outcome.after:.1f} s" if outcome.action is Action.RETRY else ""
    say(
        logging.WARNING if again else logging.ERROR,
        "run of %s failed (%s, attempt %d of %d): %s%s%s",
        outcome.task,
        outcome.reason.value,
        outcome.attempt,
        outcome.max_attempts,
        error.exception_type if error else None,
        f" at {error.where}" if error and error.where else "",
        again,
        extra={"request_id": outcome.request_id},
    )


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
