"""..."""

from __future__ import annotations

from collections.abc import Iterator

from dispatchers._config.checks import _words
from dispatchers._config.container import Snapshot
from dispatchers._models.problem import Problem


def _of_endpoint(snapshot: Snapshot) -> Iterator[Problem]:
    if not snapshot.configuration.settings.endpoint:
        return
    try:
        from dispatchers.http import Endpoint

        yield from Endpoint(snapshot.configuration.endpoint()).check()
    except Exception as exc:  # noqa: BLE001 - what others raise becomes a message
        yield Problem("", "", "error", _words(exc))
