"""A warning where work is dispatched inside an open transaction, with both stacks.

A worker may be faster than the commit and not find the row, and a rollback does not take the work
back: except where the work is a row in that transaction. In tests every such dispatch warns;
elsewhere where `DISPATCHERS_WARN_IN_TRANSACTION` is true.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections import OrderedDict
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connections
from django.db.transaction import Atomic

from dispatchers import DispatchRequest, DispatchResponse, hooks
from dispatchers.delivery import say

from ._on_commit import holding
from .outbox import database_beside

__all__ = ["DispatchInTransactionWarning", "watch"]


SETTING = "DISPATCHERS_WARN_IN_TRANSACTION"
FRAMES = 12
"""Of each stack, the innermost: enough to leave framework code behind."""
MOST = 10_000
"""Dispatches whose answer is waited for: those that Ctrl-C ended have none."""
UNKNOWN = "  (begun before the warning was switched on)\n"


class DispatchInTransactionWarning(UserWarning):
    """Work was dispatched inside an open transaction; `OnCommit()` waits for its commit."""


def watch() -> None:
    """Warn from now on, where it is wanted."""
    if wanted():
        _note_where_transactions_begin()
        for hook in (_look, _judge):
            hooks.remove(hook)
        hooks.before_dispatch(_look)
        hooks.after_dispatch(_judge)


def wanted() -> bool:
    """Return the setting; without it, whether tests are running."""
    said = getattr(settings, SETTING, None)
    return _running_tests() if said is None else bool(said)


def _running_tests() -> bool:
    return "pytest" in sys.modules or sys.argv[1:2] == ["test"]


def _note_where_transactions_begin() -> None:
    """Have each `atomic` block keep the stack that opened it."""
    enter: Any = Atomic.__enter__
    # Wrapped already: twice would take the stack twice.
    if hasattr(enter, "_dispatchers_original"):
        return

    def entering(self: Any) -> None:
        self._dispatchers_stack = traceback.extract_stack(sys._getframe(1), limit=FRAMES)
        enter(self)

    entering._dispatchers_original = enter  # type: ignore[attr-defined]
    Atomic.__enter__ = entering  # type: ignore[method-assign]


class _Found(NamedTuple):
    """Open transactions around a dispatch, by the alias of the database, and its stack."""

    task: str
    blocks: dict[str, Any]
    here: traceback.StackSummary


_found: OrderedDict[str, _Found] = OrderedDict()
"""By the request's id, until the answer says where the work is."""


def _look(request: DispatchRequest) -> None:
    if not wanted():
        return
    if blocks := _open_blocks():
        here = traceback.extract_stack(sys._getframe(1), limit=FRAMES)
        _found[request.id] = _Found(request.task, blocks, here)
        if len(_found) > MOST:
            _found.popitem(last=False)


def _open_blocks() -> dict[str, Any]:
    """Return the outermost block of each open transaction whose commit is not waited for."""
    found: dict[str, Any] = {}
    for connection in connections.all(initialized_only=True):
        if connection.alias not in holding.get():
            atomic: list[Any] = list(connection.atomic_blocks)
            blocks = [each for each in atomic if not each._from_testcase]
            if blocks:
                found[connection.alias] = blocks[0]
    return found


def _judge(response: DispatchResponse) -> None:
    found = _found.pop(response.request_id, None)
    if found is None:
        return
    beside = database_beside(response)
    for alias, block in found.blocks.items():
        if alias != beside:
            _warn(found, alias, block)
            return


def _warn(found: _Found, alias: str, block: Any) -> None:
    begun = getattr(block, "_dispatchers_stack", None)
    message = (
        f"task {found.task!r} is dispatched inside an open transaction of database {alias!r}: "
        "a worker may run it before the commit, and a rollback does not take it back; "
        "use .options(dispatcher=OnCommit()), or an outbox\n"
        f"the transaction was begun here:\n{_shown(begun)}"
        f"the work is dispatched here:\n{_shown(found.here)}"
    )
    try:
        warnings.warn(message, DispatchInTransactionWarning, stacklevel=2)
    except DispatchInTransactionWarning:  # made an error by a filter, which no dispatch may raise
        say(logging.WARNING, "%s", message)


def _shown(stack: traceback.StackSummary | None) -> str:
    return UNKNOWN if stack is None else "".join(stack.format())
