"""Removal of secrets from text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import SecretBytes, SecretStr

from dispatchers._models.base import Model

if TYPE_CHECKING:
    from urllib.parse import SplitResult


NAMED = re.compile(
    r"(?i)(?:password|passwd|pwd|passphrase|secret|token)=('[^']*'|\"[^\"]*\"|[^\s&;]+)"
)
"""Passwords by name: in a query (`?password=...`) and in a key-value address of PostgreSQL."""

SEPARATOR = re.compile(r"[;,](?=[\w+.-]+://)")
"""Between the addresses of a fail-over list."""

WORTH_HIDING = 3
"""Characters of a part that is struck out wherever it stands; shorter ones only in quotes, or every
message would be stars."""

DELIMITERS = re.compile(r"[/?#@:\[\]\\\s]")
"""What ends a part of an address for one client or another."""


def without_secrets(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text with every secret struck out."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def secrets_of(options: Model) -> tuple[str, ...]:
    """Collect the secrets and passwords in a model's values."""
    found: set[str] = set()
    for value in options.__dict__.values():
        found.update(_secrets_in(value))
    return _longest_first(found)


def _secrets_in(value: object) -> set[str]:  # noqa: PLR0911 - one for each kind of value
    match value:
        case SecretStr():
            text = value.get_secret_value()
            # A secret may be an address: an error of its client then quotes the password alone.
            return {text} | _secrets_in(text)
        case SecretBytes():
            return {value.get_secret_value().decode(errors="replace")}
        case str():
            return _passwords(value)
        case Model():
            return set(secrets_of(value))
        case list() | tuple() | set() | frozenset():
            return set().union(*map(_secrets_in, value))
        case dict():
            return set().union(*map(_secrets_in, value.values()))
        case _:
            return set()


def _passwords(text: str) -> set[str]:
    """Return the passwords in an address, or in several, in every form that may be shown."""
    named = {found.strip("'\"") for found in NAMED.findall(text)}
    inside = set().union(*map(_pieces, SEPARATOR.split(text)))
    # As written and decoded: clients show either.
    return {form for each in named | inside for form in (each, _unquoted(each))}


def _pieces(address: str) -> set[str]:
    """Return the password of one address, and the parts that a client may split it into.

    An address that is not written as it should be, with a password that has an unescaped `/` or `#`
    in it for one, is split at the wrong place, and the client's error quotes a part.
    """
    password = _password(address)
    if not DELIMITERS.search(password):
        return {password}
    parts = {part for part in DELIMITERS.split(password) if part}
    quoted = {f"{mark}{part}{mark}" for part in parts for mark in "'\""}
    return {password, *quoted, *(part for part in parts if len(part) >= WORTH_HIDING)}


def _password(address: str) -> str:
    """Return what may be the password; of an address that cannot be parsed, all of it."""
    scheme, mark, rest = address.partition("://")
    # A path may have an @ in it, and no password.
    if address.startswith("sqlite:"):
        return ""
    if mark and _is_sound(address) and scheme.startswith("http"):
        return _parsed(address).password or ""
    user, at, _ = (rest if mark else address).rpartition("@")
    if at:
        return user.partition(":")[2]
    return rest if mark and not _is_sound(address) else ""


def _is_sound(address: str) -> bool:
    try:
        _ = _parsed(address).port
    except ValueError:
        return False
    return True


def _parsed(address: str) -> SplitResult:
    # Late: `import dispatchers` stays cheap, and most processes have no address to look into.
    from urllib.parse import urlsplit

    return urlsplit(address)


def _unquoted(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text)


def without_passwords(text: str, address: str) -> str:
    """Return a message about an address without the passwords in it."""
    return without_secrets(text, _longest_first(_passwords(address)))


def shown(address: str) -> str:
    """Return an address, or the name of a store, as it may be shown."""
    return without_passwords(address, address)


def _longest_first(secrets: set[str]) -> tuple[str, ...]:
    """Order secrets so that one within another leaves nothing of that behind."""
    return tuple(sorted((each for each in secrets if each), key=len, reverse=True))
