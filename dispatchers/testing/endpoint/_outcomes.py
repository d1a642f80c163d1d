"""Cases on outcomes and the status that reports each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatchers import DeadLetter
from dispatchers._models.fields import new_id
from dispatchers.http import EndpointSettings
from dispatchers.stores import dead_letters
from dispatchers.testing import tasks

from ._scene import Scene, Send
from ._tasks import hold

__all__ = ["SaysWhatBecame"]

Serving = Callable[[EndpointSettings], AbstractContextManager[Send]]
DOWN = "dispatchers.testing.endpoint._stores:Down"
PATIENCE = 30.0
"""Seconds until a condition is given up."""


def letter_of(body: bytes) -> DeadLetter | None:
    """The dead letter of an envelope, if there is one."""
    # The store of this process has the letters of other cases as well.
    known = dead_letters("memory").list(limit=10_000)
    return next((each for each in known if each.body == body), None)


def header(answer: Any, name: str) -> str | None:
    """A header of an answer, whatever a server makes of its case."""
    return next((v for n, v in answer.headers if n.lower() == name.lower()), None)


def begun(scene: Scene) -> None:
    """Wait until a handler runs."""
    until = time.monotonic() + PATIENCE
    while "begun" not in scene.journal.texts:
        assert time.monotonic() < until, "the handler did not begin"
        time.sleep(0.005)


class SaysWhatBecame:
    """Statuses of `cloud_tasks`, dead letters, attempts."""

    def test_work_that_succeeds_is_acknowledged(self, serve: Serving, scene: Scene) -> None:
        """204, and nothing else to read."""
        with serve(scene.settings()) as send:
            answer = scene.push(send)

        assert (answer.status, answer.body) == (204, b"")
        assert scene.journal.texts == ["ran"]

    def test_arguments_arrive_as_they_were(self, serve: Serving, scene: Scene) -> None:
        """C5: equal and of the same types."""
        body = scene.envelope(tasks.compare, journal=scene.journal.path, **tasks.SAMPLE)
        with serve(scene.settings()) as send:
            answer = scene.push(send, body)

        assert answer.status == 204
        assert scene.journal.texts == ["equal"]

    def test_failed_work_comes_again(self, serve: Serving, scene: Scene) -> None:
        """The attempt is the queue's retry count and one; 500 with `Retry-After` asks for more."""
        body = scene.envelope(tasks.fail, journal=scene.journal.path, times=2)
        with serve(scene.settings()) as send:
            answers = [scene.push(send, body, X_CloudTasks_TaskRetryCount=str(n)) for n in range(3)]

        assert [answer.status for answer in answers] == [500, 500, 204]
        assert header(answers[0], "Retry-After") == "0"
        assert [entry.attempt for entry in scene.journal.entries] == [1, 2, 3]

    def test_work_that_failed_for_good_is_a_dead_letter(self, serve: Serving, scene: Scene) -> None:
        """200 with a marker, once the dead-letter store has it (C11)."""
        body = scene.envelope(tasks.fail, journal=scene.journal.path, times=99)
        with serve(scene.settings()) as send:
            answer = scene.push(send, body, X_CloudTasks_TaskRetryCount="2")

        assert (answer.status, header(answer, "Dispatchers-Outcome")) == (200, "exhausted")
        letter = letter_of(body)
        assert letter is not None
        assert (letter.reason, letter.attempts) == ("exhausted", 3)

    def test_an_error_of_a_handler_is_not_told(self, serve: Serving, scene: Scene) -> None:
        """Generic, valid JSON: neither its words nor its type leave the worker."""
        body = scene.envelope(tasks.fail, journal=scene.journal.path, times=99)
        with serve(scene.settings()) as send:
            answers = [scene.push(send, body, X_CloudTasks_TaskRetryCount=n) for n in ("0", "9")]

        assert [json.loads(answer.body) for answer in answers] == [
            {"outcome": "failed"},
            {"outcome": "exhausted"},
        ]

    def test_a_dead_letter_that_cannot_be_stored_is_not_acknowledged(
        self, serve: Serving, scene: Scene
    ) -> None:
        """503 until the store has it (C9)."""
        body = scene.envelope(tasks.fail, journal=scene.journal.path, times=99)
        with serve(scene.settings(dead_letters=DOWN)) as send:
            answers = [
                scene.push(send, body, X_CloudTasks_TaskRetryCount="9"),
                scene.push(send, b"no envelope"),
            ]

        assert [answer.status for answer in answers] == [503, 503]
        assert all(header(answer, "Retry-After") for answer in answers)

    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"null", b"[]", b'"text"', b"{", b"\xff\xfe", b'{"task": 1}', b"[" * 150],
        ids=repr,
    )
    def test_what_is_no_envelope_is_a_dead_letter(
        self, serve: Serving, scene: Scene, body: bytes
    ) -> None:
        """Acknowledged with a marker: a push queue would deliver it for ever."""
        with serve(scene.settings()) as send:
            answer = scene.push(send, body)

        assert (answer.status, header(answer, "Dispatchers-Outcome")) == (200, "no_envelope")
        assert letter_of(body) is not None

    def test_deep_json_is_no_envelope(self, serve: Serving, scene: Scene) -> None:
        """Beyond `max_depth` nothing is parsed; brackets within texts do not count."""
        deep: Any = "x"
        for _ in range(60):
            deep = [deep]
        bodies = [
            scene.foreign("dispatchers.testing.note", payload={"journal": deep}),
            # A text full of brackets and quotes: counting must follow the escapes.
            scene.note('["\\' * 100),
        ]
        with serve(scene.settings(max_depth=50)) as send:
            answers = [scene.push(send, body) for body in bodies]

        assert [answer.status for answer in answers] == [200, 204]
        assert header(answers[0], "Dispatchers-Outcome") == "no_envelope"

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"task": "dispatchers.testing.no_such_task"}, "unknown_task"),
            ({"task": "dispatchers.testing.note", "payload": {"x": 1}}, "invalid_arguments"),
        ],
    )
    def test_what_this_worker_does_not_know_is_handed_back_for_a_while(
        self, serve: Serving, scene: Scene, values: dict[str, Any], reason: str
    ) -> None:
        """C11: for `skew_grace`, then it is a dead letter."""
        old = datetime.now(UTC) - timedelta(seconds=400)
        bodies = [scene.foreign(**values), scene.foreign(**values, created_at=old)]
        with serve(scene.settings(skew_grace=300.0)) as send:
            answers = [scene.push(send, body) for body in bodies]

        assert [answer.status for answer in answers] == [503, 200]
        assert int(header(answers[0], "Retry-After") or 0) >= 1
        assert header(answers[1], "Dispatchers-Outcome") == reason
        assert letter_of(bodies[0]) is None
        assert letter_of(bodies[1]) is not None

    def test_a_newer_envelope_is_handed_back_for_a_while(
        self, serve: Serving, scene: Scene
    ) -> None:
        """C11: a worker of the next version may be on its way."""
        # In the bytes: this version's model cannot be made with another number.
        body = scene.body.replace(b'{"version":1,', b'{"version":2,')
        with serve(scene.settings(skew_grace=300.0)) as send:
            answer = scene.push(send, body)

        assert (answer.status, json.loads(answer.body)) == (503, {"outcome": "newer_envelope"})

    def test_after_many_attempts_by_the_queue_s_own_count_it_is_dead(
        self, serve: Serving, scene: Scene
    ) -> None:
        """Whatever kept it from an outcome; the execution count, without 5xx, is not asked."""
        with serve(scene.settings(max_attempts=10)) as send:
            last = scene.push(
                send, X_CloudTasks_TaskRetryCount="9", X_CloudTasks_TaskExecutionCount="0"
            )
            beyond = scene.push(send, X_CloudTasks_TaskRetryCount="10")

        assert (last.status, beyond.status) == (204, 200)
        assert header(beyond, "Dispatchers-Outcome") == "too_many_deliveries"
        assert scene.journal.texts == ["ran"]
        assert letter_of(scene.body) is not None

    @pytest.mark.parametrize("count", ["", "-1", "x", "1e3", "٣", "0" * 5000])
    def test_a_count_that_is_none_is_the_first(
        self, serve: Serving, scene: Scene, count: str
    ) -> None:
        """A header may hold any text."""
        with serve(scene.settings()) as send:
            answer = scene.push(send, X_CloudTasks_TaskRetryCount=count.encode().decode("latin-1"))

        assert answer.status == 204
        assert [entry.attempt for entry in scene.journal.entries] == [1]

    @pytest.mark.parametrize("count", ["9" * 9, "9" * 10, "9" * 5000], ids=len)
    def test_a_count_of_any_length_is_beyond_the_limit(
        self, serve: Serving, scene: Scene, count: str
    ) -> None:
        """However many digits it has; it is never taken for the first attempt."""
        with serve(scene.settings(max_attempts=10)) as send:
            answer = scene.push(send, X_CloudTasks_TaskRetryCount=count)

        assert (answer.status, header(answer, "Dispatchers-Outcome")) == (
            200,
            "too_many_deliveries",
        )
        assert scene.journal.texts == []

    def test_a_handler_may_ask_for_a_pause(self, serve: Serving, scene: Scene) -> None:
        """`Retry(after=...)` is 429 with `Retry-After`, rounded up."""
        body = scene.envelope(tasks.wait, journal=scene.journal.path, seconds=6.5)
        with serve(scene.settings()) as send:
            answer = scene.push(send, body)

        assert (answer.status, header(answer, "Retry-After")) == (429, "7")

    def test_what_a_handler_discards_is_done(self, serve: Serving, scene: Scene) -> None:
        """200 with a marker, and no dead letter."""
        body = scene.envelope(tasks.discard, journal=scene.journal.path)
        with serve(scene.settings()) as send:
            answer = scene.push(send, body)

        assert (answer.status, header(answer, "Dispatchers-Outcome")) == (200, "discarded")
        assert letter_of(body) is None

    def test_what_has_expired_is_not_run(self, serve: Serving, scene: Scene) -> None:
        """200 with a marker."""
        body = scene.note(options={"expires": datetime.now(UTC) - timedelta(seconds=1)})
        with serve(scene.settings()) as send:
            answer = scene.push(send, body)

        assert (answer.status, header(answer, "Dispatchers-Outcome")) == (200, "expired")
        assert scene.journal.texts == []

    def test_a_duplicate_is_acknowledged(self, serve: Serving, scene: Scene) -> None:
        """C10: with an idempotency store, the same request runs once."""
        with serve(scene.settings(idempotency="memory")) as send:
            answers = [scene.push(send) for _ in range(3)]

        assert [answer.status for answer in answers] == [204, 200, 200]
        assert json.loads(answers[1].body) == {"outcome": "duplicate"}
        assert scene.journal.texts == ["ran"]

    def test_what_is_in_flight_comes_again(self, serve: Serving, scene: Scene) -> None:
        """C10: 409 while another delivery of it runs; never acknowledged."""
        body = scene.envelope(hold, journal=scene.journal.path)
        with (
            serve(scene.settings(idempotency="memory")) as send,
            ThreadPoolExecutor() as pool,
        ):
            first = pool.submit(scene.push, send, body)
            # Once the first one runs: sent at the same time, either may be the one that is refused.
            begun(scene)
            # While the first one is still held.
            second = scene.push(send, body)
            scene.journal.release()
            status = first.result(PATIENCE).status

        assert (second.status, status) == (409, 204)
        assert header(second, "Retry-After")
        assert scene.journal.texts == ["begun", "ended"]

    def test_an_idempotency_store_that_is_down_hands_back(
        self, serve: Serving, scene: Scene
    ) -> None:
        """It is unknown whether it ran."""
        with serve(scene.settings(idempotency=DOWN)) as send:
            answer = scene.push(send)

        assert answer.status == 503
        assert scene.journal.texts == []

    def test_a_sync_handler_blocks_nobody_else(self, serve: Serving, scene: Scene) -> None:
        """While one handler waits, another delivery is answered."""
        body = scene.envelope(hold, journal=scene.journal.path)
        with serve(scene.settings()) as send, ThreadPoolExecutor() as pool:
            waiting = pool.submit(scene.push, send, body)
            begun(scene)
            answer = scene.push(send)
            scene.journal.release()
            status = waiting.result(PATIENCE).status

        assert (answer.status, status) == (204, 204)
        assert scene.journal.texts == ["begun", "ran", "ended"]

    def test_a_plain_client_reads_statuses_as_they_are_meant(
        self, serve: Serving, scene: Scene
    ) -> None:
        """With `transport = "plain"`: 422 is final, 503 is not; the attempt has a header."""
        body = scene.envelope(tasks.fail, journal=scene.journal.path, times=99)
        with serve(scene.settings(transport="plain")) as send:
            answers = [
                scene.push(send, body),
                scene.push(send, body, Dispatchers_Attempt="3"),
                scene.push(send, new_id().encode()),
            ]

        assert [answer.status for answer in answers] == [503, 422, 422]
        assert [entry.attempt for entry in scene.journal.entries] == [1, 3]
