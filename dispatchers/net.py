"""Connections for adapters: opened within a time limit, pooled, and kept apart from forks.

A resolver that never answers defeats every synchronous client's own timeout; these do not wait
beyond theirs. What they raise at the limit was certainly raised before anything was sent, so that
an adapter's `_maybe_sent` answers false for a `ConnectTimeoutError`.
"""

from dispatchers._runtime.address import misread
from dispatchers._runtime.connect import (
    Address,
    ConnectTimeoutError,
    Resolver,
    ResolveTimeoutError,
    bounded,
    connect,
    probe,
    resolve,
)
from dispatchers._runtime.connection_pool import ConnectionPool, Pooled, first_of
from dispatchers._runtime.fork_gate import ForkGate
from dispatchers._runtime.guard import Guard, GuardFullError, GuardTimeoutError, register_closer
from dispatchers._runtime.per_process import PerProcess

__all__ = [
    "Address",
    "ConnectTimeoutError",
    "ConnectionPool",
    "ForkGate",
    "Guard",
    "GuardFullError",
    "GuardTimeoutError",
    "PerProcess",
    "Pooled",
    "ResolveTimeoutError",
    "Resolver",
    "bounded",
    "connect",
    "first_of",
    "misread",
    "probe",
    "register_closer",
    "resolve",
]
