"""Stores named in configuration: `memory`, `sqlite:PATH`, `redis://...` or `module:attribute`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._dead import DeadLetterStore, MemoryDeadLetters
from ._errors import ConfigurationError, MissingDependencyError
from ._idempotency import IdempotencyStore, MemoryIdempotencyStore
from ._library import cause, import_object, install
from ._options import BackendOptions

if TYPE_CHECKING:
    from ._current import RunSettings

__all__ = ["dead_letters", "idempotency", "load_object", "run_settings"]

S = TypeVar("S")
REDIS = ("redis://", "rediss://", "unix://")


def idempotency(spec: str) -> IdempotencyStore:
    """The idempotency store that `spec` names; one instance per process and spec.

    Raises:
        ConfigurationError: It names none.
    """
    return cast("IdempotencyStore", _opened("idempotency", spec))


def dead_letters(spec: str) -> DeadLetterStore:
    """The dead-letter store that `spec` names; one instance per process and spec.

    Raises:
        ConfigurationError: It names none.
    """
    return cast("DeadLetterStore", _opened("dead_letters", spec))


@cache
def _opened(option: str, spec: str) -> object:
    if spec == "memory":
        return MemoryIdempotencyStore() if option == "idempotency" else MemoryDeadLetters()
    if spec.startswith("sqlite:"):
        return _sqlite(option, spec.removeprefix("sqlite:"))
    if spec.startswith(REDIS):
        return _redis(option, spec)
    found = load_object(option, spec)
    return found() if isinstance(found, type) else found


def _sqlite(option: str, path: str) -> object:
    from . import sqlite

    opens: Callable[[str], object] = (
        sqlite.SQLiteIdempotencyStore if option == "idempotency" else sqlite.SQLiteDeadLetters
    )
    return opens(path)


def _redis(option: str, url: str) -> object:
    try:
        from . import redis
    except ImportError as exc:
        raise MissingDependencyError(
            f"{option} is in a Redis, which needs redis-py: {install('redis')}"
        ) from exc
    opens: Callable[[str], object] = (
        redis.RedisIdempotencyStore if option == "idempotency" else redis.RedisDeadLetters
    )
    return opens(url)


def load_object(option: str, spec: str) -> Any:
    """The object that `module:attribute` names.

    Args:
        option: The option it stands in, for the message.

        spec: `package.module:attribute`, the attribute dotted if need be.

    Raises:
        ConfigurationError: It names nothing.
    """
    module, colon, path = spec.partition(":")
    if not (module and colon and path):
        raise ConfigurationError(
            f"{option} = {spec!r} names no object: write 'package.module:attribute'"
        )
    try:
        return import_object(spec)
    except Exception as exc:
        raise ConfigurationError(f"{option} = {spec!r} could not be loaded: {cause(exc)}") from exc


def run_settings(options: BackendOptions) -> RunSettings:
    """What a dispatcher's options say about runs."""
    from ._current import RunSettings

    return RunSettings(
        on_handler_error=options.on_handler_error,
        idempotency=None if options.idempotency is None else idempotency(options.idempotency),
        max_deliveries=options.max_deliveries,
        skew_grace=options.skew_grace,
    )
