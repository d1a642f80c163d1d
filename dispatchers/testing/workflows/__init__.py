"""Tests of workflows: a clock that skips what is waited for, and replays of recorded executions.

::

    def test_three_days_without_an_answer(workflow_clock):
        execution = workflow_clock.start(checkout, order=7, skus=["a"])
        workflow_clock.run()
        assert execution.status() == "failed"
        assert workflow_clock.elapsed == timedelta(days=3)


    def test_recorded_executions_still_replay():
        assert_replays("tests/histories/*.json")

Importing it needs no pytest, except for the fixture `workflow_clock`.
"""

from typing import TYPE_CHECKING

from ._clock import WorkflowClock
from ._histories import assert_replays
from ._replays import ReplayError

if TYPE_CHECKING:
    from ._fixture import workflow_clock

__all__ = ["ReplayError", "WorkflowClock", "assert_replays", "workflow_clock"]


def __getattr__(name: str) -> object:
    """Load the fixture, and with it pytest, on first use."""
    if name == "workflow_clock":
        from ._fixture import workflow_clock

        return workflow_clock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
