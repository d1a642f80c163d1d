"""The start-up check: every problem of every dispatcher of a target, at once (C12)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from ._errors import ConfigurationError
from ._layers import DEFAULT
from ._library import cause, is_importable
from ._snapshot import CLOSE_WAIT, Snapshot, build, close

__all__ = ["Problem", "check", "problems"]


class Problem(NamedTuple):
    """Something that the start-up check found."""

    alias: str
    """The dispatcher's, or nothing if it concerns the whole configuration."""
    backend: str
    """The backend's name, as far as it is known."""
    severity: Literal["error", "warning"]
    """Errors make `check` raise."""
    message: str
    """What, where, and the cure."""


def check(*, contact: bool = False, target: str | None = None) -> None:
    """Check the configuration and every dispatcher of a target: the start-up check.

    Args:
        contact: Reach the backends as well.

        target: Another target than the selected one.

    Raises:
        ConfigurationError: With every problem there is, not just the first.
    """
    errors = [each for each in problems(target, contact=contact) if each.severity == "error"]
    if errors:
        from ._sentences import joined

        raise joined([each.message for each in errors])


def problems(target: str | None = None, *, contact: bool = False) -> list[Problem]:
    """What is wrong with a target, as far as can be known; never raises an `Exception`."""
    from ._state import state

    snapshot = state.snapshot
    try:
        settings = snapshot.configuration.settings
        selected = target is None or target == settings.target
        aliases = sorted(
            snapshot.aliases() if selected else snapshot.configuration.dispatchers(target)
        )
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        return [Problem("", "", "error", _words(exc))]
    found = [*_of_modules(snapshot), *_of_fallbacks(snapshot), *_of_endpoint(snapshot)]
    for alias in aliases:
        found += _of_dispatcher(snapshot, alias, None if selected else target, contact=contact)
    return found


def _of_modules(snapshot: Snapshot) -> Iterator[Problem]:
    settings = snapshot.configuration.settings
    for kind, names in (("modules", settings.modules), ("hooks", settings.hooks)):
        for name in names:
            if not is_importable(name):
                origin = snapshot.configuration.layer.origin_of((kind,))
                message = f"{kind} ({origin}): there is no module {name!r} to import"
                yield Problem("", "", "error", message)


def _of_fallbacks(snapshot: Snapshot) -> Iterator[Problem]:
    for alias in sorted(snapshot.fallbacks):
        message = f"dispatcher {alias!r} is not configured: its tasks go through {DEFAULT!r}"
        yield Problem(alias, "", "warning", message)


def _of_endpoint(snapshot: Snapshot) -> Iterator[Problem]:
    if not snapshot.configuration.settings.endpoint:
        return
    try:
        from .http import Endpoint

        yield from Endpoint(snapshot.configuration.endpoint()).check()
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        yield Problem("", "", "error", _words(exc))


def _of_dispatcher(
    snapshot: Snapshot, alias: str, target: str | None, *, contact: bool
) -> Iterator[Problem]:
    try:
        if target is None:
            dispatcher = snapshot.dispatcher(alias)
        else:
            dispatcher = build(snapshot.configuration.specification(alias, target))
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        yield Problem(alias, "", "error", _words(exc))
        return
    try:
        dispatcher.check(contact=contact)
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        yield Problem(alias, dispatcher.name, "error", f"dispatcher {alias!r}: {_words(exc)}")
    finally:
        if target is not None:
            close([dispatcher], CLOSE_WAIT)


def _words(exc: Exception) -> str:
    return str(exc) if isinstance(exc, ConfigurationError) else cause(exc)


def raise_all(snapshot: Snapshot, aliases: Iterable[str] | None = None) -> None:
    """Raise one error for every dispatcher whose settings do not fit; builds none of them."""
    from ._sentences import joined, sentences_of

    found: list[ConfigurationError] = []
    for alias in sorted(snapshot.aliases() if aliases is None else aliases):
        if alias in snapshot.objects:
            continue
        try:
            snapshot.specification(alias)
        except ConfigurationError as exc:
            found.append(exc)
    if len(found) == 1:
        raise found[0]
    if found:
        raise joined([sentence for exc in found for sentence in sentences_of(exc)])
