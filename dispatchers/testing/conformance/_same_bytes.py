"""C5: the same bytes everywhere, and the same values at the other end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatchers import DispatchRequest, ErrorCategory, hooks
from dispatchers._models.envelope import encode
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_raises import WAYS
from ._tools import handed_over, label, long_text, refused_with, run_until, send

__all__ = ["SameBytes"]

GOLDEN = (
    b'{"version":1,"task":"dispatchers.testing.note","idempotency_key":"key \\" 1",'
    b'"headers":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},'
    b'"context":{"tenant":7},"id":"0123456789abcdef0123456789abcdef",'
    b'"created_at":"2024-02-29T12:00:00.000001Z",'
    b'"payload":{"journal":"/nowhere","text":"\xc3\xa9 \\u0000 \xf0\x9f\x98\x80 {\\"json\\":1}"}}'
)
"""An envelope as every backend must hold it."""
REQUEST = {
    "task": "dispatchers.testing.note",
    "id": "0123456789abcdef0123456789abcdef",
    "created_at": datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC),
    "idempotency_key": 'key " 1',
    "headers": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    "context": {"tenant": 7},
    "payload": {"journal": "/nowhere", "text": 'é \x00 \U0001f600 {"json":1}'},
}


class SameBytes:
    """C5, from outside."""

    def test_the_envelope_arrives_byte_for_byte(self, harness: Harness) -> None:
        """C5: the backend holds the very bytes of the envelope, whatever its serializer."""
        harness.need("received")
        dispatcher = harness.dispatcher()

        response = dispatcher.dispatch(DispatchRequest.model_validate(REQUEST))

        assert response.ok
        assert harness.received(dispatcher) == [GOLDEN]

    def test_every_way_hands_over_the_same_bytes(self, harness: Harness, journal: Journal) -> None:
        """C5: sync or async, one or many: the same request is the same bytes."""
        harness.need("received")
        dispatcher = harness.dispatcher()
        requests = [tasks.note.request(journal.path) for _ in WAYS]
        batch = [tasks.note.request(journal.path, each) for each in ("", long_text(dispatcher))]

        for way, request in zip(WAYS.values(), requests, strict=True):
            way(harness, dispatcher, request)
        dispatcher.dispatch_many(batch)

        # Sorted: backends need not keep an order among requests.
        assert sorted(harness.received(dispatcher)) == sorted(map(encode, [*requests, *batch]))

    def test_typed_values_arrive_equal(self, harness: Harness, journal: Journal) -> None:
        """C5: UUID, aware datetime, Decimal, bytes, enum, model and more: equal, same type."""
        harness.need("worker")
        dispatcher = harness.dispatcher()

        comparing = tasks.compare.options(dispatcher=dispatcher)
        handed_over(comparing.dispatch(journal.path, **tasks.SAMPLE))
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert journal.texts == ["equal"]

    def test_each_run_has_a_context_of_its_own(self, harness: Harness, journal: Journal) -> None:
        """C5: what a run leaves in a context variable, the next does not see."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        colors = tasks.colors.options(dispatcher=dispatcher)

        for count, color in enumerate(("red", "green", "blue"), 1):
            colors.dispatch(journal.path, color).raise_for_error()
            run_until(harness, dispatcher, lambda count=count: len(journal.texts) == count)  # type: ignore[misc]

        assert journal.texts == ["none"] * 3

    def test_large_arguments_arrive_whole(self, harness: Harness, journal: Journal) -> None:
        """C5: a payload of 100 kB is not cut; a backend that takes less says so (C6)."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        # With a character of two bytes: a length in characters would cut the end off.
        text = "0123456789abcdeé" * 6250
        note = tasks.note.options(dispatcher=dispatcher)

        response = note.dispatch(journal.path, text)

        if dispatcher.capabilities.max_size is not None and not response.ok:
            refused_with(response, ErrorCategory.TOO_LARGE)
            return
        assert response.ok
        run_until(harness, dispatcher, lambda: bool(journal.texts))
        assert journal.texts == [text]

    @pytest.mark.parametrize(
        "value",
        [float("nan"), float("inf"), {1: 2}, {1, 2}, b"bytes", object(), "\ud800"],
        ids=label,
    )
    def test_what_json_cannot_carry_is_refused(
        self, harness: Harness, journal: Journal, value: object
    ) -> None:
        """C5: a value that would come back as another one is REJECTED before any contact."""
        dispatcher = harness.dispatcher()
        options: Any = tasks.note.options

        response = options(dispatcher=dispatcher, context={"x": value}).dispatch(journal.path)

        refused_with(response, ErrorCategory.INVALID)
        assert not harness.has("received") or harness.received(dispatcher) == []
        assert send(dispatcher, journal).ok

    def test_the_handler_sees_the_whole_request(self, harness: Harness, journal: Journal) -> None:
        """C5: headers, context, key and creation time reach the handler as they were sent."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        request = tasks.see.options(
            headers={"traceparent": "00-1-2-01"},
            context={"tenant": [1, None, "é"]},
            idempotency_key="the key",
        ).request(journal.path)

        handed_over(dispatcher.dispatch(request))
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        seen = json.loads(journal.texts[0])
        assert seen["headers"] == dict(request.headers)
        assert seen["context"] == dict(request.context)
        assert seen["key"] == "the key"
        assert seen["created_at"] == request.created_at.isoformat()

    def test_what_a_hook_changes_travels(self, harness: Harness, journal: Journal) -> None:
        """C5: a request that a `before_dispatch` hook gives back is the one handed over."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        hook = hooks.before_dispatch(_with_headers)
        try:
            handed_over(tasks.see.options(dispatcher=dispatcher).dispatch(journal.path))
        finally:
            hooks.remove(hook)

        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert json.loads(journal.texts[0])["headers"] == {"tenant": "acme"}


def _with_headers(request: DispatchRequest) -> DispatchRequest:
    return request.replace(headers={"tenant": "acme"})
