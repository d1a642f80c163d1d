"""Stores and objects named in configuration, for adapters.

`dead_letters` and `idempotency` give the store that an option of that name names; one instance per
process and name. `load_object` gives a user's own object, such as `app = "shop.celery:app"`, and
`load_client` one that may be given, named, or replaced by a `url`.
`FilePath` is the type of an option that names a file, and `count_dead` counts a store's letters.
`Watch` tells from outside whether a claim is still renewed, for a store that others write.
"""

from dispatchers._models.paths import FilePath
from dispatchers._runtime.lease import Watch
from dispatchers._stores.loading import (
    count_dead,
    dead_letters,
    idempotency,
    load_client,
    load_object,
)
from dispatchers._stores.memory import MemoryDeadLetters, MemoryIdempotencyStore

__all__ = [
    "FilePath",
    "MemoryDeadLetters",
    "MemoryIdempotencyStore",
    "Watch",
    "count_dead",
    "dead_letters",
    "idempotency",
    "load_client",
    "load_object",
]
