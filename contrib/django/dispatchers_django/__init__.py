"""Django: settings, checks, dispatch on commit, the worker's endpoint, an idempotency store.

`pip install "dispatchers[django]"`, and `"dispatchers_django"` in `INSTALLED_APPS`. See README.md
beside this package.
"""

from ._on_commit import OnCommit
from ._transactions import DispatchInTransactionWarning
from .signals import dispatched

__all__ = ["DispatchInTransactionWarning", "OnCommit", "dispatched"]
