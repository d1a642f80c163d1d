"""A scheduler has held work handed over, trusted as those who push work are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DispatchRequest, get_dispatcher, override
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.http import Endpoint, EndpointSettings
from dispatchers.testing import RecordingDispatcher

SECRET = "0123456789abcdef0123456789abcdef"
RELAY = "/dispatchers/relay"
TRUSTED = [("Authorization", f"Bearer {SECRET}")]


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A broker that was away while three pieces of work were dispatched."""
    monkeypatch.setattr("dispatchers.forwarding.Forwarder.start", lambda self: None)
    broker = RecordingDispatcher(alias="broker")
    kept = {"backend": "spill", "to": "broker", "path": str(tmp_path / "spill.db")}
    with override(default=kept, broker=broker):
        with broker.down():
            for n in range(3):
                get_dispatcher().dispatch(DispatchRequest(task="t", payload={"n": n}))
        yield broker


def endpoint(**settings: object) -> Endpoint:
    return Endpoint(EndpointSettings(worker=True, secrets=SECRET, **settings))  # type: ignore[arg-type]


def test_a_scheduler_has_it_handed_over(broker):
    """A push deployment has no worker that would do it."""
    answer = endpoint().handle("POST", RELAY, TRUSTED, b"")

    assert (answer.status, json.loads(answer.body)) == (200, {"relayed": 3})
    assert len(broker._book.waiting) == 3


def test_afterwards_another_process_may_do_it_at_once(broker):
    """It does not hold the store until its lease runs out."""
    endpoint().handle("POST", RELAY, TRUSTED, b"")

    with get_dispatcher().held.database.transaction(timeout=5) as connection:  # type: ignore[attr-defined]
        assert connection.execute("SELECT count(*) FROM held_by").fetchone() == (0,)


def test_on_an_event_loop(broker):
    """The same, and the loop is not blocked by the file."""
    answer = asyncio.run(endpoint().ahandle("POST", RELAY, TRUSTED, b""))

    assert json.loads(answer.body) == {"relayed": 3}


def test_while_the_broker_is_away_nothing_goes(broker):
    """And the answer comes at once."""
    with broker.down():
        answer = endpoint().handle("POST", RELAY, TRUSTED, b"")

    assert (answer.status, json.loads(answer.body)) == (200, {"relayed": 0})


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("POST", [], 401), ("POST", [("Authorization", "Bearer no")], 401), ("GET", TRUSTED, 405)],
)
def test_a_stranger_moves_nothing(broker, method, headers, status):
    """The same verifiers hold as for work."""
    assert endpoint().handle(method, RELAY, headers, b"").status == status
    assert not broker._book.waiting


def test_a_store_that_fails_is_503(broker, monkeypatch, caplog):
    """Why is in the log, not in the answer."""

    def fails(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("dispatchers.sqlite._held.HeldRows.lead", fails)

    assert endpoint().handle("POST", RELAY, TRUSTED, b"").status == 503
    assert "OSError" in caplog.text
    assert isinstance(get_dispatcher(), SpillDispatcher)


def test_a_store_that_fails_holds_up_no_other(broker, tmp_path):
    """What the others hold leaves; the answer is 503, so that the scheduler asks again."""
    missing = {"backend": "outbox", "to": "broker", "store": f"sqlite:{tmp_path / 'none'}"}
    kept = {"backend": "spill", "to": "broker", "path": str(tmp_path / "spill.db")}
    with override(an_outbox=missing, default=kept, broker=broker):
        answer = endpoint().handle("POST", RELAY, TRUSTED, b"")

    assert answer.status == 503
    assert len(broker._book.waiting) == 3
