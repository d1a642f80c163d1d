"""What of a configuration must not be shown."""

from __future__ import annotations

from pydantic import SecretBytes, SecretStr

from ._model import Model

__all__ = ["secrets_of", "without_secrets"]


def without_secrets(text: str, secrets: tuple[str, ...]) -> str:
    """The text with every secret struck out."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def secrets_of(options: Model) -> tuple[str, ...]:
    """The texts in a model's values that must not be shown: secrets, and passwords in URLs."""
    found: set[str] = set()
    for value in options.__dict__.values():
        found.update(_secrets_in(value))
    return tuple(sorted((s for s in found if s), key=len, reverse=True))


def _secrets_in(value: object) -> set[str]:  # noqa: PLR0911 - one for each kind of value
    match value:
        case SecretStr():
            text = value.get_secret_value()
            return {text} | _secrets_in(text)
        case SecretBytes():
            return {value.get_secret_value().decode(errors="replace")}
        case str() if "://" in value:
            return _password(value)
        case Model():
            return set(secrets_of(value))
        case list() | tuple() | set() | frozenset():
            return set().union(*map(_secrets_in, value))
        case dict():
            return set().union(*map(_secrets_in, value.values()))
        case _:
            return set()


def _password(url: str) -> set[str]:
    """As it stands in the URL, and as a client reads it."""
    from urllib.parse import unquote, urlsplit

    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return set()
    return {password, unquote(password)}
