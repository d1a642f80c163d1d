"""Children that have the code of executions in memory, where a turn need not replay it."""

from __future__ import annotations

import re
from collections import OrderedDict

from dispatchers.sqlite._records import Job
from dispatchers.sqlite._worker.child_handle import ChildProcess

__all__ = ["Homes"]

# As many as a child keeps the code of.
_KEPT = 1000


_EXECUTION = re.compile(rb'"payload":\{"execution":("(?:[^"\\]|\\.)*")')


class Homes:
    """The child that took the last turn, by execution. It only spares time to know it."""

    def __init__(self) -> None:
        self._children: OrderedDict[bytes, ChildProcess] = OrderedDict()

    def remember(self, job: Job | None, child: ChildProcess) -> None:
        """Note which child ran a job, if that was a turn."""
        if job is not None and (execution := _execution(job)) is not None:
            self._children[execution] = child
            self._children.move_to_end(execution)
            if len(self._children) > _KEPT:
                self._children.popitem(last=False)

    def of(self, job: Job) -> ChildProcess | None:
        """Return the child for a job; None if any will do."""
        # One that was interrupted before is left to a child that is idle.
        execution = _execution(job) if job.deliveries == 1 else None
        return None if execution is None else self._children.get(execution)


def _execution(job: Job) -> bytes | None:
    """Return the execution as it stands in the envelope of a turn; None for other work."""
    if not job.task.endswith("/turn"):
        return None
    found = _EXECUTION.search(job.body)
    return found and found[1]
