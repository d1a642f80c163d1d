"""The fixture `workflow_clock`, for runs without the pytest plugin, which has it as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._clock import WorkflowClock

__all__ = ["workflow_clock"]


@pytest.fixture
def workflow_clock(request: pytest.FixtureRequest) -> Iterator[WorkflowClock]:
    """A `WorkflowClock` in place of every configured dispatcher, of the journal, and of time."""
    with WorkflowClock.installed(request.config.getoption("workflow_seed", None)) as clock:
        request.node.add_report_section("call", "workflow clock", clock.hint)
        yield clock
