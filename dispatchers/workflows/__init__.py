"""Durable workflows: async functions whose awaits are recorded and replayed."""

from dispatchers._errors import NotDurableError, StepError
from dispatchers.workflows._execution import Execution, ExecutionError, UnknownExecutionError
from dispatchers.workflows._language import (
    local,
    now,
    patched,
    publish,
    random,
    restart,
    uuid4,
)
from dispatchers.workflows._signal import Signal
from dispatchers.workflows._sweep import sweep
from dispatchers.workflows._undo import Undo, undo
from dispatchers.workflows._waiting import first, gather, race
from dispatchers.workflows._workflow import Workflow, workflow

__all__ = [
    "Execution",
    "ExecutionError",
    "NotDurableError",
    "Signal",
    "StepError",
    "Undo",
    "UnknownExecutionError",
    "Workflow",
    "first",
    "gather",
    "local",
    "now",
    "patched",
    "publish",
    "race",
    "random",
    "restart",
    "sweep",
    "undo",
    "uuid4",
    "workflow",
]
