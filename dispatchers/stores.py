"""What is named in configuration, for adapters: stores, and objects as `module:attribute`.

`dead_letters` and `idempotency` give the store that an option of that name names; one instance per
process and name. `load_object` gives a user's own object, such as `app = "shop.celery:app"`.
`Watch` judges from outside whether a claim is still renewed, for a store that others write.
"""

from ._dead import MemoryDeadLetters
from ._idempotency import MemoryIdempotencyStore
from ._stores import dead_letters, idempotency, load_object
from ._watch import Watch

__all__ = [
    "MemoryDeadLetters",
    "MemoryIdempotencyStore",
    "Watch",
    "dead_letters",
    "idempotency",
    "load_object",
]
