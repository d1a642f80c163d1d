"""Results of `django.tasks` in memory: all that there is where none are kept.

A process knows of its own runs only: earlier ones of the same work are counted, by the attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils import timezone

from ._task_api import TaskError, TaskResultStatus
from ._task_results import FAILED, RUNNING, SUCCESSFUL

if TYPE_CHECKING:
    from ._task_api import TaskResult

__all__ = ["begin", "change", "end"]


def begin(result: TaskResult[..., Any], worker: str, attempt: int) -> None:
    """Note that a run begins."""
    now = timezone.now()
    # Who had the attempts before this one is not known here; `context.attempt` counts them.
    before = result.worker_ids or [""] * (attempt - 1)
    change(
        result,
        status=TaskResultStatus(RUNNING),
        started_at=result.started_at or now,
        last_attempted_at=now,
        worker_ids=[*before, worker],
    )


def end(
    result: TaskResult[..., Any],
    status: str,
    *,
    value: Any = None,
    error: dict[str, str] | None = None,
) -> None:
    """Note how a run ended."""
    change(
        result,
        status=TaskResultStatus(status),
        finished_at=timezone.now() if status in (FAILED, SUCCESSFUL) else None,
        errors=[*result.errors, *([] if error is None else [TaskError(**error)])],
        _return_value=value,
    )


def change(result: TaskResult[..., Any], **values: Any) -> None:
    """Set fields of a result, which is frozen for others."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
