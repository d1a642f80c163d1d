"""Cases of a `Forwarder` over the store: what is certain goes, in order, with nothing open."""

from __future__ import annotations

import random
import threading

import pytest

from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers.forwarding import Forwarder, Source

from ._harness import SourceHarness
from ._tools import (
    PATIENCE,
    Backend,
    bodies,
    drained,
    in_lanes,
    lanes_in_order,
    poison,
    row,
    taken,
    wait_until,
)

DONE = (DispatchStatus.ACCEPTED, DispatchStatus.DUPLICATE, DispatchStatus.EXECUTED)
STAY = ("unavailable", "throttled", "capacity", "authentication", "permission", "not_found")
DIE = ("invalid", "too_large", "unsupported", "conflict")
OFTEN = 0.3
"""The chance that a row is not taken."""
PAUSE = 0.02
"""Seconds that a row waits in these cases which is to be tried again."""


def _answer(request: DispatchRequest) -> Sent:
    """Answer what the id says, `2-throttled` say."""
    word = request.id.partition("-")[2]
    if word in [status.value for status in DONE]:
        return Sent(request.id, DispatchStatus(word))
    if word == "doubt":
        raise ConnectionResetError("cut")
    raise RejectedError(ErrorCategory(word), "not this one")


class Forwards:
    """S21 to S28."""

    # What is said of work that dies is for people; here the letters are looked at.
    @pytest.mark.dispatchers_unchecked
    def test_only_what_is_certain_goes(self, harness: SourceHarness, source: Source) -> None:
        """S21, F7: doubt and what may be taken later stay; what is never taken is dead."""
        done = [each.value for each in DONE]
        put = [row(f"{n}-{word}") for n, word in enumerate((*done, "doubt", *STAY, *DIE))]
        harness.put(put)
        Forwarder(source, Backend(_answer), in_lanes=False).step()

        left = [each.id for each in put if each.body in bodies(taken(source))]
        assert [each.partition("-")[2] for each in left] == ["doubt", *STAY]
        dead = [each.id for each in put if each.body in harness.dead()]
        assert [each.partition("-")[2] for each in dead] == [*DIE]

    def test_repeats_carry_the_same_id(
        self, harness: SourceHarness, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S22, F7: and the same bytes, however often a row is tried."""
        _hurry(monkeypatch)
        put = [row("r0")]
        harness.put(put)
        left = [6]

        def answer(request: DispatchRequest) -> None:
            del request
            left[0] -= 1
            if left[0] >= 0:
                raise ConnectionResetError("cut")

        backend = Backend(answer)
        drained(Forwarder(source, backend))
        assert backend.calls == [("r0", put[0].body)] * 7

    def test_lanes_keep_their_order(
        self, harness: SourceHarness, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S23, F8: whatever is refused, and in doubt, on the way."""
        harness.need("lanes")
        _hurry(monkeypatch)
        put = in_lanes(*(f"{'abc'[n % 3]}{n}" for n in range(30)))
        harness.put(put)
        chance = random.Random(8)  # noqa: S311 - the same in each run

        def answer(request: DispatchRequest) -> None:
            del request
            if chance.random() < OFTEN:
                raise RejectedError(ErrorCategory.THROTTLED, "not now")
            if chance.random() < OFTEN:
                raise ConnectionResetError("cut")

        backend = Backend(answer)
        drained(Forwarder(source, backend, batch=7))
        lanes_in_order(backend.took, put)

    def test_a_lane_that_is_stuck_holds_up_no_other(
        self, harness: SourceHarness, source: Source
    ) -> None:
        """S24, F8: also where more of it is held than is taken at once."""
        harness.need("lanes")
        harness.put(in_lanes(*(f"a{n}" for n in range(9)), "b1", "c1", "b2"))

        def answer(request: DispatchRequest) -> None:
            if request.id == "a0":
                raise RejectedError(ErrorCategory.THROTTLED, "not now")

        backend = Backend(answer)
        forwarder = Forwarder(source, backend, batch=3)

        def others_left() -> bool:
            forwarder.step()
            return len(backend.took) == len(wanted)

        wanted = ["b1", "c1", "b2"]
        wait_until(others_left, "they are held up")
        assert backend.took == wanted

    def test_no_transaction_is_open_meanwhile(self, harness: SourceHarness, source: Source) -> None:
        """S25, F9: while the backend is spoken to, the store has none open."""
        harness.need("transactions")
        put = in_lanes("a1", "b1", "a2")
        harness.put(put)
        open_meanwhile: list[bool] = []

        def answer(request: DispatchRequest) -> None:
            del request
            open_meanwhile.append(harness.in_transaction(source))

        drained(Forwarder(source, Backend(answer)))
        assert open_meanwhile == [False] * len(put)

    def test_others_can_put_meanwhile(self, harness: SourceHarness, source: Source) -> None:
        """S26, F9: callers wait for no backend; what they put is handed over as well."""
        put = in_lanes("a1", "b1")
        harness.put(put[:1])
        begun = threading.Event()

        def put_when_told() -> None:
            begun.wait(PATIENCE)
            harness.put(put[1:])

        thread = threading.Thread(target=put_when_told, daemon=True)

        def answer(request: DispatchRequest) -> None:
            if request.id == "a1":
                begun.set()
                thread.join(5)
                assert not thread.is_alive(), "a caller waits for the backend"

        thread.start()
        backend = Backend(answer)
        drained(Forwarder(source, backend))
        assert backend.took == ["a1", "b1"]
        assert [name for name, _ in backend.calls] == ["a1", "b1"]

    @pytest.mark.dispatchers_unchecked
    def test_poison_stops_nothing(self, harness: SourceHarness, source: Source) -> None:
        """S27, O8: it becomes a dead letter, with its bytes, and its lane goes on."""
        put = [poison("p0", "a"), row("1-too_large", "a"), row("2-accepted", "a"), poison("p1")]
        harness.put(put)
        backend = Backend(_answer)
        drained(Forwarder(source, backend))

        assert backend.took == ["2-accepted"]
        dead = [put[0], put[1], put[3]]
        assert sorted(harness.dead()) == sorted(bodies(dead))

    def test_a_wake_is_enough(self, harness: SourceHarness, source: Source) -> None:
        """S28, F10: what is put after the store was empty leaves by the thread that is woken."""
        backend = Backend()
        forwarder = Forwarder(source, backend)
        try:
            for count in range(1, 4):
                harness.put([row(f"r{count}")])
                forwarder.wake()
                wait_until(source.is_empty, "it was not handed over")
        finally:
            forwarder.stop(10)
        assert backend.took == ["r1", "r2", "r3"]


def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon what is refused."""
    for longest in ("LONGEST_BACKOFF", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"dispatchers.forwarding.{longest}", PAUSE)
