"""What is told of a call that came back after its deadline."""

from __future__ import annotations

import logging
import threading

import pytest

from dispatchers import BaseDispatcher, Capabilities, DispatchRequest, DispatchStatus, Sent


class Slow(BaseDispatcher):
    """Sends when it is released, which is after the deadline."""

    name = "slow"
    contract = 1
    capabilities = Capabilities(confirmed=True)
    guarded = True
    released: threading.Event

    def _send(self, request, body, *, timeout):
        self.released.wait(30)
        return Sent()

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return False


def test_a_late_success_stays_unknown_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """C3: what came back too late was answered as unknown, and the log says how it ended."""
    caplog.set_level(logging.INFO, "dispatchers")
    dispatcher = Slow(deadline=0.05)
    dispatcher.released = threading.Event()

    response = dispatcher.dispatch(DispatchRequest(task="t"))
    dispatcher.released.set()
    dispatcher.close(10)

    assert response.status is DispatchStatus.UNKNOWN
    assert "was handed over late" in caplog.messages[-1]
