"""Signals."""

from django.dispatch import Signal

__all__ = ["dispatched"]

dispatched = Signal()
"""Sent with the final response of each dispatch through `OnCommit`.

`sender` is `OnCommit`, `response` the `DispatchResponse`, `using` the database's alias. What a
receiver raises is logged, and goes nowhere.
"""
