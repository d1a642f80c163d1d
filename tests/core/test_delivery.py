"""Running and settling a delivery, as every adapter does it."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from dispatchers import (
    Action,
    BackendOptions,
    Outcome,
    Reason,
    RejectedError,
    Retry,
    run_settings,
    task,
)
from dispatchers.delivery import Delivery, DeliveryCount, aprocess, failed, process, sent, settle


class Recorded(Delivery):
    """A delivery that writes down how it is settled, and fails where told to."""

    def __init__(self, body: bytes, *, broken: str = "") -> None:
        self.body, self.id, self.queue = body, "m-1", "mail"
        self.steps: list[object] = []
        self._broken = broken

    def _step(self, name: str, *values: object) -> None:
        self.steps.append((name, *values))
        if name == self._broken:
            raise OSError("down")

    def complete(self, outcome):
        self._step("complete", outcome.reason)

    def retry(self, outcome):
        self._step("retry", outcome.attempt, outcome.after)

    def give_back(self, after):
        self._step("give_back", after)

    def dead_letter(self, outcome, letter):
        self._step("dead_letter", letter.id, letter.queue)

    def abandon(self):
        self._step("abandon")


class Letters:
    """A store that writes down what it is given, or is down."""

    def __init__(self, steps, *, down: bool = False) -> None:
        self._steps, self._down = steps, down

    def add(self, letter):
        if self._down:
            raise OSError("down")
        self._steps.append(("stored", letter.id))


@pytest.fixture
def body():
    @task(name="delivery.works", max_attempts=2)
    def works(how: str = "") -> None:
        if how == "retry":
            raise Retry(after=3)
        if how == "die":
            raise TypeError("no")
        if how == "exit":
            raise SystemExit(3)

    def made(how: str = "") -> bytes:
        return works.request(how).model_dump_json(exclude={"deadline", "deduplicate"}).encode()

    return made


def test_a_run_that_succeeds_completes_its_delivery(body):
    """C9: a delivery is settled after its run, once."""
    delivery = Recorded(body())

    outcome = process(delivery)

    assert outcome.ok
    assert delivery.steps == [("complete", Reason.SUCCEEDED)]


def test_a_retry_is_published_by_the_delivery(body):
    """C9: the next attempt is the delivery's to publish and confirm."""
    delivery = Recorded(body("retry"))

    process(delivery)

    assert delivery.steps == [("retry", 1, 3.0)]


@pytest.mark.parametrize("broken", ["complete", "retry", "give_back", "dead_letter"])
def test_a_step_that_fails_abandons_the_delivery(broken, caplog):
    """C9: what could not be confirmed goes back, and the log has one record with the type."""
    action = dict(zip(("complete", "retry", "give_back", "dead_letter"), Action, strict=True))[
        broken
    ]
    delivery = Recorded(b"{}", broken=broken)

    settled = settle(delivery, Outcome(action=action, reason=Reason.FAILED))

    assert not settled
    assert delivery.steps[-1] == ("abandon",)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "OSError" in caplog.text


def test_a_dead_letter_is_stored_before_the_delivery_is_settled(body):
    """C9: first the letter, then the settlement."""
    delivery = Recorded(body("die"))

    process(delivery, letters=Letters(delivery.steps))

    assert [step[0] for step in delivery.steps] == ["stored", "dead_letter"]


def test_a_letter_that_cannot_be_stored_gives_the_work_back(body, caplog):
    """C9: no settlement without the letter."""
    delivery = Recorded(body("die"))

    process(delivery, letters=Letters(delivery.steps, down=True))

    assert delivery.steps == [("abandon",)]


def test_a_store_that_stays_down_is_said_once_an_interval(body, caplog):
    """One condition is one record per interval, however many deliveries meet it."""
    down = Letters([], down=True)

    for _ in range(20):
        process(Recorded(body("die")), letters=down)

    assert caplog.text.count("could not be stored") == 1


def test_what_is_no_envelope_has_a_letter_by_the_id_of_its_message():
    """C11: a message that is not an envelope is kept as well."""
    delivery = Recorded(b"nonsense")

    process(delivery)

    assert delivery.steps == [("dead_letter", "m-1", "mail")]


def test_a_worker_that_ends_gives_its_delivery_back(body):
    """C9: SystemExit ends the worker, and the delivery is as it would be after its death."""
    delivery = Recorded(body("exit"))

    with pytest.raises(SystemExit):
        process(delivery)

    assert delivery.steps == [("abandon",)]


def test_on_a_loop_it_is_the_same(body):
    """C9: the async form settles in the same order."""
    delivery = Recorded(body("die"))

    asyncio.run(aprocess(delivery, letters=Letters(delivery.steps)))

    assert [step[0] for step in delivery.steps] == ["stored", "dead_letter"]


@pytest.mark.parametrize("value", [None, True, -1, 0, "x", "", "1e3", b"\xff", "9" * 5000, 10**12])
def test_a_header_that_is_no_count_reads_as_the_first(value):
    """Anybody may have written a header: nothing in it raises."""
    headers = {"dispatchers_attempt": value, "dispatchers_deliveries": value}

    assert DeliveryCount.read(headers) == DeliveryCount()


@pytest.mark.parametrize("due", [None, True, "soon", "nan", float("inf"), 10**400, b"-inf"])
def test_a_due_time_that_is_none_is_at_once(due):
    """Neither text nor infinity holds work back for ever."""
    assert DeliveryCount.read({"dispatchers_due": due}).wait == 0


@pytest.mark.parametrize("encode", [str, lambda text: str(text).encode(), lambda value: value])
def test_counts_travel_as_numbers_or_text(encode):
    """Redis gives bytes, RabbitMQ numbers: all are read alike."""
    counts = DeliveryCount(3, 2, 12.5)
    headers = {name: encode(value) for name, value in counts.headers.items()}

    assert DeliveryCount.read(headers) == counts


def test_the_next_attempt_counts_its_deliveries_anew():
    """C10: deliveries are those of one attempt."""
    outcome = Outcome(action=Action.RETRY, reason=Reason.FAILED, attempt=2, after=60)

    counts = DeliveryCount(2, 4).next_attempt(outcome)

    assert counts[:2] == (3, 1)
    assert counts.due > time.time() + 30


def test_the_answer_to_work_that_ran_in_the_call(body):
    """C3: `executed`, `duplicate` or `failed`; what did not run is rejected with its category."""
    done = sent(Outcome(action=Action.DONE, reason=Reason.SUCCEEDED), "t-1")
    error = ValueError("secret")

    assert (done.task_id, done.status.value) == ("t-1", "executed")
    assert failed("native.task", error).status.value == "failed"
    assert "secret" not in failed("native.task", error).error.message
    with pytest.raises(RejectedError) as caught:
        sent(Outcome(action=Action.DEAD, reason=Reason.UNKNOWN_TASK))
    assert caught.value.category.value == "not_found"


def test_settings_of_runs_are_those_of_the_very_options():
    """Equal options of another dispatcher may name a store that was opened anew since."""
    first, equal = BackendOptions(max_deliveries=3), BackendOptions(max_deliveries=3)
    other = BackendOptions(max_deliveries=4)

    kept = run_settings(first)

    assert run_settings(first) is kept
    assert run_settings(equal) == kept
    assert run_settings(equal) is not kept
    assert run_settings(other).max_deliveries == 4


def test_settings_of_runs_are_kept_by_how_they_run():
    """A quiet run, or one that is interrupted, has the other settings of its dispatcher."""
    options = BackendOptions(skew_grace=7.0)

    plain, quiet = run_settings(options), run_settings(options, quiet=True)
    interrupted = run_settings(options, interrupts=True)

    assert [plain.quiet, quiet.quiet, interrupted.quiet] == [False, True, False]
    assert [plain.interrupts, quiet.interrupts, interrupted.interrupts] == [False, False, True]
    assert {each.skew_grace for each in (plain, quiet, interrupted)} == {7.0}
