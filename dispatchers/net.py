"""Name resolution and connecting within a time limit, for adapters.

A resolver that never answers defeats every synchronous client's own timeout; these do not wait
beyond theirs. What they raise at the limit was certainly raised before anything was sent, so that
an adapter's `_maybe_sent` answers false for a `ConnectTimeoutError`.
"""

from ._guard import Guard, GuardFullError, GuardTimeoutError, register_closer
from ._net import (
    Address,
    ConnectTimeoutError,
    Resolver,
    ResolveTimeoutError,
    bounded,
    connect,
    probe,
    resolve,
)

__all__ = [
    "Address",
    "ConnectTimeoutError",
    "Guard",
    "GuardFullError",
    "GuardTimeoutError",
    "ResolveTimeoutError",
    "Resolver",
    "bounded",
    "connect",
    "probe",
    "register_closer",
    "resolve",
]
