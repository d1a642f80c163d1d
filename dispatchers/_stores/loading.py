"""Stores named in configuration: `memory`, `sqlite:PATH`, `redis://...` or `module:attribute`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from dispatchers._errors import ConfigurationError, MissingDependencyError
from dispatchers._models.claim import ClaimInfo, IdempotencyStore
from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.paths import absolute_spec
from dispatchers._models.redaction import shown, without_passwords
from dispatchers._runtime.importing import cause, import_object, install
from dispatchers._stores.memory import MemoryDeadLetters, MemoryIdempotencyStore

__all__ = ["count_dead", "dead_letters", "idempotency", "load_object"]

S = TypeVar("S")


REDIS = ("redis://", "rediss://", "unix://")


def idempotency(spec: str) -> IdempotencyStore:
    """Return the idempotency store of a name; one instance per process.

    Raises:
        ConfigurationError: It names none.
    """
    return cast("IdempotencyStore", _opened("idempotency", str(absolute_spec(spec))))


def dead_letters(spec: str) -> DeadLetterStore:
    """Return the dead-letter store of a name; one instance per process.

    Raises:
        ConfigurationError: It names none.
    """
    return cast("DeadLetterStore", _opened("dead_letters", str(absolute_spec(spec))))


# One store per name and process: each has its own connection and lease observations.
@cache
def _opened(option: str, spec: str) -> object:
    if spec == "memory":
        return MemoryIdempotencyStore() if option == "idempotency" else MemoryDeadLetters()
    if spec.startswith("sqlite:"):
        return _sqlite(option, spec.removeprefix("sqlite:"))
    if spec.startswith(REDIS):
        return _redis(option, spec)
    # First: for a mistyped address, a module that is not found would be an odd answer.
    if "://" in spec or "@" in spec:
        raise ConfigurationError(
            f"{option} = {shown(spec)!r} is not the address of a store: write redis://HOST:PORT/DB "
            "(or rediss://, unix://), sqlite:PATH, memory or 'package.module:attribute'"
        )
    found = load_object(option, spec)
    # A class is built without arguments; an instance or module is taken as it is.
    return found() if isinstance(found, type) else found


def _sqlite(option: str, path: str) -> object:
    kind = "SQLiteIdempotencyStore" if option == "idempotency" else "SQLiteDeadLetters"
    opens: Any = import_object(f"dispatchers.sqlite:{kind}")
    return opens(path)


def _redis(option: str, url: str) -> object:
    kind = "RedisIdempotencyStore" if option == "idempotency" else "RedisDeadLetters"
    try:
        opens: Any = import_object(f"dispatchers.redis:{kind}")
    except ImportError as exc:
        raise MissingDependencyError(
            f"{option} is in a Redis, which needs redis-py: {install('redis')}"
        ) from exc
    try:
        return opens(url)
    except Exception as exc:  # noqa: BLE001 - the client's words may quote the password
        text = f"{option} = {url!r} cannot be used: {cause(exc)}"
        raise ConfigurationError(without_passwords(text, url)) from None


def count_dead(store: DeadLetterStore | None) -> Mapping[str, int] | None:
    """Count a store's dead letters by queue; None if it cannot.

    A store tells by a method `counts`, which gives numbers by queue. It is not part of the
    protocol: listing every letter, each with its envelope, would be the only way without it.
    """
    counts: Callable[[], Mapping[str, int]] | None = getattr(store, "counts", None)
    return None if counts is None else counts()


def listed_claims(store: IdempotencyStore) -> Iterable[ClaimInfo] | None:
    """Return a store's claims, if it has a method `claims`; else None."""
    claims: Callable[[], Iterable[ClaimInfo]] | None = getattr(store, "claims", None)
    return None if claims is None else claims()


def load_object(option: str, spec: str) -> Any:
    """Return the object that `module:attribute` names.

    Args:
        option: The option it stands in, for the message.

        spec: `package.module:attribute`, the attribute dotted if need be.

    Raises:
        ConfigurationError: It names nothing.
    """
    module, colon, path = spec.partition(":")
    if not (module and colon and path):
        raise ConfigurationError(
            f"{option} = {shown(spec)!r} names no object: write 'package.module:attribute'"
        )
    try:
        return import_object(spec)
    except Exception as exc:
        text = f"{option} = {spec!r} could not be loaded: {cause(exc)}"
        raise ConfigurationError(without_passwords(text, spec)) from exc


def load_client(subject: str, option: str, given: object, url: object, what: str) -> Any:
    """Return the client that an option gives or names; None where a `url` stands in its place.

    The message names the `subject`, a dispatcher, and `what` the client is: `a redis.Redis`, say.

    Raises:
        ConfigurationError: Neither is given, or both, or the name names nothing.
    """
    if (given is None) is (url is None):
        raise ConfigurationError(
            f"{subject}: give `{option}`, {what} as 'package.module:attribute', or `url`, "
            "the address of its server, and not both"
        )
    return load_object(option, given) if isinstance(given, str) else given
