"""Running work in the call, for a backend that was told to be eager."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import RejectedError
from dispatchers._models.options import BackendOptions
from dispatchers._models.outcome import Action
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._runtime.loop_thread import run_coroutine
from dispatchers._worker.outcomes import failed, sent
from dispatchers._worker.runner import run_envelope
from dispatchers._worker.settings import run_settings
from dispatchers.native import arguments, is_native

__all__ = ["Eager", "called"]


class Eager(NamedTuple):
    """Work that is run in the call, in place of a message."""

    request: DispatchRequest
    body: bytes
    """Its envelope."""

    def run(
        self,
        options: BackendOptions,
        native: Callable[[DispatchRequest], Sent],
        *,
        repeats: bool = True,
    ) -> Sent | Exception:
        """Run it, again at once while its task asks for that and it `repeats`; return the answer.

        `native` runs work that is the backend's own.
        """
        try:
            return native(self.request) if is_native(self.request) else self._ran(options, repeats)
        except RejectedError as exc:
            return exc

    def _ran(self, options: BackendOptions, repeats: bool) -> Sent:
        settings = run_settings(options, quiet=True)
        outcome = run_envelope(self.body, settings=settings)
        while repeats and outcome.action is Action.RETRY:
            outcome = run_envelope(self.body, attempt=outcome.attempt + 1, settings=settings)
        return sent(outcome, self.request.id)


def called(request: DispatchRequest, function: Callable[..., object]) -> Sent:
    """Call the function of a backend's own work, an async one to its end.

    Whatever it raises is the answer.
    """
    args, kwargs = arguments(request)
    try:
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            run_coroutine(result)
    except Exception as exc:  # noqa: BLE001 - the answer
        return failed(request.task, exc, request.id)
    return Sent(request.id, DispatchStatus.EXECUTED)
