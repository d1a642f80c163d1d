"""Start-up check: every problem of a target at once (C12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dispatchers._config.container import (
    CLOSE_WAIT,
    Snapshot,
    among,
    build,
    close,
    without_its_secrets,
)
from dispatchers._config.layers import DEFAULT
from dispatchers._config.references import ENDPOINT_CHECK, JOURNAL_CHECK
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError
from dispatchers._models.problem import Problem
from dispatchers._runtime.importing import cause, import_object, is_importable

__all__ = ["problems_of", "raise_all"]


def problems_of(
    snapshot: Snapshot, target: str | None = None, *, contact: bool = False
) -> list[Problem]:
    """Return the problems of a target; never raises an `Exception`."""
    try:
        settings = snapshot.configuration.settings
        selected = target is None or target == settings.target
        aliases = sorted(
            snapshot.aliases() if selected else snapshot.configuration.dispatchers(target)
        )
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        return [Problem("", "", "error", _words(exc))]
    found = [*_of_modules(snapshot), *_of_fallbacks(snapshot), *_of_endpoint(snapshot)]
    found += _of_journal(snapshot, contact=contact)
    for alias in aliases:
        found += _of_dispatcher(snapshot, alias, None if selected else target, contact=contact)
    return found


def _of_endpoint(snapshot: Snapshot) -> Iterator[Problem]:
    check: Callable[[Snapshot], Iterator[Problem]] = import_object(ENDPOINT_CHECK)
    return check(snapshot)


def _of_journal(snapshot: Snapshot, *, contact: bool) -> Iterator[Problem]:
    check: Callable[..., Iterator[Problem]] = import_object(JOURNAL_CHECK)
    return check(snapshot, contact=contact)


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


def _of_dispatcher(
    snapshot: Snapshot, alias: str, target: str | None, *, contact: bool
) -> Iterator[Problem]:
    apart = _Apart(snapshot, target)
    try:
        dispatcher = snapshot.dispatcher(alias) if target is None else apart.dispatcher(alias)
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        yield Problem(alias, "", "error", _words(exc))
        apart.close()
        return
    try:
        dispatcher.check(contact=contact)
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        text = without_its_secrets(dispatcher, _words(exc))
        yield Problem(alias, dispatcher.name, "error", _named(alias, text))
    else:
        for warning in getattr(dispatcher, "warnings", ()):  # of contact; others' may have none
            yield Problem(alias, dispatcher.name, "warning", _named(alias, warning))
    finally:
        apart.close()


class _Apart:
    """Dispatchers of another target than the selected one, built for a check."""

    def __init__(self, snapshot: Snapshot, target: str | None) -> None:
        self._configuration, self._target = snapshot.configuration, target
        self._built: dict[str, BaseDispatcher | None] = {}

    def dispatcher(self, alias: str) -> BaseDispatcher:
        """Return a dispatcher of that target, built if need be, with those that it stands on."""
        if alias not in self._built:
            self._built[alias] = None
            with among(self.dispatcher):
                specification = self._configuration.specification(alias, self._target)
                self._built[alias] = build(specification)
        found = self._built[alias]
        if found is None:
            raise ConfigurationError(f"dispatcher {alias!r} stands on itself")
        return found

    def close(self) -> None:
        """Close what was built."""
        close([each for each in self._built.values() if each is not None], CLOSE_WAIT)


def _named(alias: str, text: str) -> str:
    """Return a text that says which dispatcher it is about, once."""
    begin = f"dispatcher {alias!r}"
    return text if text.startswith(begin) else f"{begin}: {text}"


def _words(exc: Exception) -> str:
    return str(exc) if isinstance(exc, ConfigurationError) else cause(exc)


def raise_all(snapshot: Snapshot, aliases: Iterable[str] | None = None) -> None:
    """Raise one error with every setting that does not fit."""
    from dispatchers._models.validation import joined, sentences_of

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
