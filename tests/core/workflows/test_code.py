"""Code of workflows: signals, failures, cancellation, undoing, patches, and what else there is."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import logging
import random as chance
import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

from dispatchers import (
    DeclarationError,
    DispatchStatus,
    NotDurableError,
    PayloadError,
    StepError,
    classify,
    task,
)
from dispatchers._journal.values import EntryKind, Status
from dispatchers._models.envelope import decode, encode
from dispatchers._tasks.recorder import recording
from dispatchers.workflows import (
    Signal,
    first,
    gather,
    local,
    now,
    patched,
    publish,
    race,
    random,
    restart,
    undo,
    uuid4,
)

approval = Signal("approval", bool)
number = Signal("number", int)


class CardDeclinedError(Exception):
    pass


class OtherError(Exception):
    pass


@task(name="code.double", queue="slow")
def double(n: int) -> int:
    return 2 * n


@task(name="code.ship")
async def ship(n: int) -> str:
    return f"parcel {n}"


@task(name="code.refund")
def refund(n: int) -> None: ...


@task(name="code.tags")
def tags(names: set[str]) -> int:
    return len(names)


@task(name="code.child")
async def child(n: int) -> int:
    return n


# Signals


def test_a_signal_during_the_wait(story):
    """It is received."""

    async def flow():
        return await approval.receive()

    told = story(flow)

    assert told.live.waits_for == "signal approval"
    assert told.signal("approval", True).result is True


def test_a_signal_before_the_wait(story):
    """It is kept."""

    async def flow():
        await double.step(1)
        return await approval.receive()

    assert story(flow).signal("approval", True).run_step(1).result is True


def test_signals_after_the_end(story):
    """They change nothing."""

    async def flow():
        return await number.receive()

    told = story(flow).signal("number", 1)

    assert told.signal("number", 2).cancel().result == 1


def test_signals_of_one_name_keep_their_order(story):
    """Of those that came before the wait as well."""

    async def flow():
        await double.step(1)
        return [await number.receive() for _ in range(4)]

    told = story(flow).signal("number", 1).signal("number", 2).run_step(1)

    assert told.signal("number", 3).signal("number", 4).result == [1, 2, 3, 4]


def test_two_waiters(story):
    """The one that has waited longest is first."""

    async def flow():
        return await asyncio.gather(number.receive(), number.receive())

    assert story(flow).signal("number", 1).signal("number", 2).result == [1, 2]


def test_signals_in_a_loop_with_timeouts(story):
    """One that comes between two waits is not lost; the same name is awaited again."""

    async def flow():
        got = []
        while len(got) < 4:
            try:
                async with asyncio.timeout(60):
                    got.append(await number.receive())
            except TimeoutError:
                got.append(-1)
                await double.step(1)
        return got

    told = story(flow).signal("number", 1).fire()
    told.signal("number", 2)

    assert told.run_step(told.steps[0]).fire().play().result == [1, -1, 2, -1]


def test_a_signal_that_comes_as_the_wait_is_given_up(story):
    """It is there for the next one: two tasks, one of which is cancelled."""

    async def flow():
        one, two = (asyncio.create_task(number.receive()) for _ in range(2))
        await double.step(1)
        one.cancel()
        return await two

    assert story(flow).run_step(1).signal("number", 5).result == 5


def test_a_signal_that_does_not_fit(story):
    """The execution is stuck rather than failed: mended code reads it."""

    async def flow():
        return await number.receive()

    told = story(flow, seen=False)
    told.live.feed(told.entry(EntryKind.SIGNAL, name="number", body=b'"text"'))

    assert "signal 'number'" in told.live.mismatch
    assert told.live.take_commands() == []


@dataclass
class Approval:
    ok: bool
    by: str


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Approval, Approval(True, "ada")),
        (Decimal, Decimal("9.990")),
        (datetime, datetime(2026, 11, 29, tzinfo=UTC)),
        (date, date(2026, 11, 29)),
        (timedelta, timedelta(days=3, microseconds=1)),
        (UUID, UUID(int=5)),
        (bytes, b"\x00\xff"),
        (Colour, Colour.RED),
        (list[int], [1, 2]),
        (dict[str, float], {"a": 0.1}),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2, 3}),
        (type(None), None),
    ],
    ids=lambda each: str(getattr(each, "__name__", "")),
)
def test_every_type_is_a_signal_and_a_result(story, kind, value):
    """As it was: not as the JSON that carried it."""
    signal = Signal("typed", kind)
    seen = []

    def give():
        return value

    give.__annotations__["return"] = kind

    async def flow():
        seen.append((await signal.receive(), await local(give)))

    told = story(flow, seen=False)
    told.tell(told.entry(EntryKind.SIGNAL, name="typed", body=signal.codec.encode(value)))
    told.play()

    assert told.end.status is Status.COMPLETED
    assert seen == [(value, value)]
    assert type(seen[0][0]) is type(seen[0][1]) is type(value)


# Failures


def test_a_failed_step_raises(story):
    """With what the journal says of it."""

    async def flow():
        try:
            await double.step(1)
        except StepError as exc:
            return [exc.category, exc.exception_type, exc.message, exc.attempts, exc.step]

    told = story(flow).fail(1, CardDeclinedError("no money"), attempts=5)

    name = f"{__name__}.CardDeclinedError"
    assert told.result == ["handler", name, "no money", 5, "code.double (1)"]


def test_a_failure_is_caught_by_its_exception(story):
    """By the recorded name: other exceptions pass."""

    async def flow():
        seen = []
        for _ in range(3):
            try:
                await double.step(1)
            except StepError.of(CardDeclinedError) as exc:
                seen.append(exc.message)
            except StepError.of("ValueError"):
                seen.append("value")
            except StepError:
                seen.append("else")
        return seen

    told = (
        story(flow).fail(1, CardDeclinedError("card")).fail(2, OtherError()).fail(3, ValueError())
    )

    assert told.result == ["card", "else", "value"]


def test_what_escapes_is_the_end(story):
    """The execution has failed, and says why."""

    async def flow():
        await double.step(1)
        raise CardDeclinedError("no money")

    told = story(flow).run_step(1)

    assert told.end.status is Status.FAILED
    assert told.end.why == f"{__name__}.CardDeclinedError: no money"
    assert b"no money" in told.end.output


def test_a_step_that_failed_and_is_not_caught(story):
    """Its exception is the execution's, so that a parent can catch it by name."""

    async def flow():
        await double.step(1)

    told = story(flow).fail(1, CardDeclinedError("no money"), attempts=3)

    assert told.end.status is Status.FAILED
    assert b'"attempts":3' in told.end.output
    assert b"CardDeclinedError" in told.end.output


@pytest.mark.parametrize("kind", [GeneratorExit, BaseException])
def test_what_is_no_exception_ends_it_as_well(story, kind):
    """The worker goes on."""

    async def flow():
        await double.step(1)
        raise kind("out")

    assert story(flow).run_step(1).end.status is Status.FAILED


class Interruption(BaseException):
    """As Dramatiq's, which raises it in the midst of a thread's work."""


classify(Interruption, "transient")


def _interrupt(kind: type[BaseException]) -> None:
    """Have an exception raised in this thread as soon as it goes on."""
    thread = ctypes.c_ulong(threading.get_ident())
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(kind)) == 1


def _go_on() -> None:
    for number in range(100_000):
        str(number)


async def _in_a_loop(kind):
    for _ in range(10):
        with contextlib.suppress(Exception):
            _interrupt(kind)
            _go_on()


async def _in_a_task(kind):
    async def interrupted():
        _interrupt(kind)
        _go_on()

    try:
        await asyncio.create_task(interrupted())
    except BaseException:  # noqa: BLE001 - as code that means to go on
        await double.step(2)


async def _in_one_of_several(kind):
    both = asyncio.gather(_in_a_loop(kind), double.step(2), return_exceptions=True)
    assert await both


async def _in_a_group(kind):
    async with asyncio.TaskGroup() as group:
        group.create_task(_in_a_loop(kind))


async def _in_what_is_undone(kind):
    async with undo() as undone:
        undone.by(double, 3)
        await _in_a_loop(kind)


async def _in_what_is_tidied_up(kind):
    try:
        await _in_a_loop(kind)
    finally:
        await double.step(4)


@pytest.mark.parametrize("kind", [Interruption, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "place",
    [
        _in_a_loop,
        _in_a_task,
        _in_one_of_several,
        _in_a_group,
        _in_what_is_undone,
        _in_what_is_tidied_up,
    ],
)
def test_what_interrupts_a_turn_is_no_failure_of_its_code(story, kind, place):
    """It ends the turn, wherever the code is; nothing that the code makes of it counts."""

    async def flow():
        await double.step(1)
        await place(kind)
        await double.step(5)

    told = story(flow, seen=False)
    with pytest.raises(kind):
        told.run_step(1)

    assert told.end is None
    assert len(told.live.take_commands()) == (place is _in_one_of_several)


def test_an_interruption_that_the_caller_handles_is_none_of_the_code(story):
    """A workflow that runs within another's `except KeyboardInterrupt` goes on."""

    async def flow():
        return await double.step(1)

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        told = story(flow).run_step(1)

    assert told.result == 2


def test_a_result_that_cannot_travel(story):
    """It fails the execution."""

    async def flow():
        return object()

    assert story(flow, seen=False).end.status is Status.FAILED


def test_arguments_that_do_not_fit(story):
    """They raise where the step is made, and ask for nothing."""

    async def flow():
        try:
            double.step("one")
        except PayloadError:
            return "no"

    told = story(flow)

    assert told.result == "no"
    assert told.asked == []


# Cancellation


def test_a_cancellation_where_it_waits(story):
    """`CancelledError`, and the execution is cancelled."""

    async def flow():
        await double.step(1)

    told = story(flow).cancel("customer called")

    assert told.end.status is Status.CANCELLED
    assert told.end.why == "customer called"


@pytest.mark.parametrize("place", range(4))
def test_a_cancellation_at_each_await(story, place):
    """`finally` may wait for further steps."""

    async def flow():
        try:
            await double.step(1)
            await asyncio.sleep(5)
            await approval.receive()
            await asyncio.gather(double.step(2), ship(3))
        finally:
            await refund.step(9)

    told = story(flow)
    for _ in range(place):
        if told.steps:
            told.run_step(told.steps[0])
        elif told.live.wake_at:
            told.fire()
        else:
            told.signal("approval", True)

    told.cancel()
    assert told.end is None
    assert told.asked[-1] == "step code.refund"
    told.done(told.steps[-1])
    assert told.end.status is Status.CANCELLED


def test_a_cancellation_that_is_caught(story):
    """The execution goes on, and completes."""

    async def flow():
        try:
            await approval.receive()
        except asyncio.CancelledError:
            return await double.step(1)

    assert story(flow).cancel().run_step(1).result == 2


def test_a_cancellation_in_finally(story):
    """It cuts the step there short; nothing of it is lost."""

    async def flow():
        try:
            await double.step(1)
        finally:
            await refund.step(1)

    told = story(flow).cancel().cancel()

    assert told.end.status is Status.CANCELLED
    assert told.asked == ["step code.double", "step code.refund"]


def test_a_cancelled_step_is_not_read(story):
    """Its answer comes, and says nothing any more."""

    async def flow():
        step = double.step(1)
        await ship(2)
        step.cancel()
        return await double.step(3)

    told = story(flow).run_step(2)

    assert told.live.waits_for == "step code.double (3)"
    assert told.run_step(1).run_step(3).result == 6


def test_code_that_cancels_itself(story):
    """It was not cancelled from outside: it has failed."""

    async def flow():
        step = double.step(1)
        step.cancel()
        await step

    assert story(flow).end.status is Status.FAILED


def test_a_local_step_that_is_cancelled_before_it_ran(story):
    """It does not run."""
    seen = []

    async def flow():
        step = local(seen.append, "ran")
        step.cancel()
        return await double.step(1)

    told = story(flow)

    assert not told.live.locals
    assert told.run_step(2).result == 2
    assert seen == []


# Local steps


def test_local_functions(story):
    """Sync and async ones, outside of the workflow's loop, each once."""
    seen = []

    def plain(n: int, *, more: int) -> int:
        seen.append(recording.get())
        return n + more

    async def asynchronous(n: int) -> int:
        await asyncio.sleep(0.001)
        seen.append(asyncio.get_running_loop())
        return n

    async def flow():
        return [await local(plain, 1, more=2), await local(asynchronous, 5)]

    told = story(flow).play()

    assert told.result == [3, 5]
    assert seen[0] is None
    assert isinstance(seen[1], asyncio.BaseEventLoop)
    assert len(seen) == 2


def test_a_local_function_that_fails(story):
    """As a step that failed for good."""

    def fails() -> None:
        raise CardDeclinedError("no money")

    async def flow():
        try:
            await local(fails)
        except StepError.of(CardDeclinedError) as exc:
            return exc.message

    assert story(flow).play().result == "no money"


def test_a_local_result_that_does_not_fit(story):
    """It is `invalid`."""

    def lies() -> int:
        return "text"

    async def flow():
        try:
            await local(lies)
        except StepError as exc:
            return exc.category

    assert story(flow).play().result == "invalid"


def test_several_local_steps_at_once(story):
    """Each is answered by itself, in any order."""

    async def flow():
        return await asyncio.gather(*[local(int, n) for n in "123"])

    told = story(flow)
    assert [call.number for call in told.live.locals] == [1, 2, 3]
    calls = [told.live.locals.popleft() for _ in range(3)]
    told.seen = False
    for call in (calls[1], calls[2], calls[0]):
        told.tell(told.entry(EntryKind.DONE, call.number, body=call.run().body))

    told.compare()
    assert told.result == [1, 2, 3]


# Calls of tasks


def test_a_call_of_an_async_task_is_a_step(story):
    """It is asked for when it is awaited, as a coroutine runs when it is."""

    async def flow():
        later = ship(1)
        await double.step(2)
        return await later

    told = story(flow)

    assert told.asked == ["step code.double"]
    assert told.play().result == "parcel 1"


@pytest.mark.dispatchers_unchecked
def test_a_dispatch_is_held(story):
    """The answer is `deferred`; the request has the id that whatever hands it over uses."""
    answers = []

    async def flow():
        answers.append(refund.options(delay=timedelta(hours=1)).dispatch(5))
        answers.append(await refund.adispatch(6))
        batch = refund.batch()
        batch.add(7)
        batch.add("wrong")
        answers.extend(batch.dispatch())
        await double.step(1)

    told = story(flow, seen=False)

    assert [each.status for each in answers[:3]] == [DispatchStatus.DEFERRED] * 3
    assert not answers[3].ok
    assert told.asked == ["send code.refund"] * 3 + ["step code.double"]
    request = decode(told.recorded[1].body)
    assert (request.id, request.delay) == (answers[0].request_id, timedelta(hours=1))
    assert "dispatchers-step" not in request.headers
    told.compare()
    assert [each.request_id for each in answers[4:7]] == [e.request_id for e in answers[:3]]


def test_the_envelope_of_a_step(story):
    """Its id is the same however often it is made, its header says whom it answers."""

    async def flow():
        await double.options(queue="fast", headers={"a": "b"}, dispatcher="mail").step(1)

    told = story(flow)

    request = decode(told.recorded[1].body)
    assert dict(request.headers) == {"a": "b", "dispatchers-step": "shop.flow/1/1"}
    assert (request.queue, request.task, len(request.id)) == ("fast", "code.double", 32)
    assert request.idempotency_key is None


def test_the_way_of_a_step(story):
    """The task's own dispatcher, or `default`, which need not be there to be named."""

    async def flow():
        double.step(1)
        await double.options(dispatcher="mail").step(1)

    told = story(flow, seen=False)
    again = told.anew()
    told.recorded.clear()
    fresh = told.anew()

    assert [c.route for c in fresh.take_commands()] == ["default", "mail"]
    again.close()
    fresh.close()


def test_a_child(story, monkeypatch):
    """A workflow that is awaited is an execution of its own."""
    monkeypatch.setattr(type(child), "is_workflow", True)

    async def flow():
        return await child.step(1)

    told = story(flow)

    request = decode(told.recorded[1].body)
    assert told.asked == ["child code.child"]
    assert dict(request.headers) == {"dispatchers-parent": "shop.flow/1/1"}
    assert told.done(1, 5).result == 5


def test_a_step_outside_of_a_workflow():
    """The error says what to do instead."""
    with pytest.raises(NotDurableError, match=r"code.double.*dispatch\(\.\.\.\) hands"):
        double.step(1)
    with pytest.raises(NotDurableError, match="@workflow"):
        now()


# Undo, restart, patched


def test_undo_runs_backwards(story):
    """The last first; async functions of the workflow as well as tasks with options."""

    async def custom(n):
        await double.step(n)

    async def flow():
        async with undo() as undone:
            undone.by(refund, await double.step(1))
            undone.by(refund.options(queue="fast"), 2)
            undone.by(custom, 3)
            raise CardDeclinedError("no money")

    told = story(flow).play()

    assert told.end.status is Status.FAILED
    assert "CardDeclinedError: no money" in told.end.why
    done = [(told.recorded[n].name, told.arguments(n)["n"]) for n in told.recorded]
    assert done[1:] == [("code.double", 3), ("code.refund", 2), ("code.refund", 2)]


def test_undo_after_a_success_does_nothing(story):
    """Also where the execution begins anew."""

    async def flow(last):
        async with undo() as undone:
            undone.by(refund, 1)
            if last:
                raise restart(cursor=1)

    assert story(lambda: flow(False)).asked == []
    assert story(lambda: flow(True)).asked == []


def test_undo_of_a_cancelled_block(story):
    """It is undone, then cancelled."""

    async def flow():
        async with undo() as undone:
            undone.by(refund, 1)
            await approval.receive()

    told = story(flow).cancel("called off")

    assert told.asked == ["step code.refund"]
    assert told.done(1).end.status is Status.CANCELLED


def test_an_undo_that_fails(story):
    """The others are tried, and the failure is not hidden."""

    async def flow():
        async with undo() as undone:
            undone.by(refund, 1)
            undone.by(refund, 2)
            raise CardDeclinedError("no money")

    told = story(flow).fail(1, OtherError("busy")).done(2)

    assert told.end.status is Status.FAILED
    assert "1 of 2 actions could not undo" in told.end.why


def test_undo_takes_no_plain_function(story):
    """It would be called again at every replay."""

    async def flow():
        async with undo() as undone:
            try:
                undone.by(print, 1)
            except TypeError as exc:
                return str(exc)

    assert "give a task" in story(flow).result


def test_restart(story):
    """The end says with which arguments it begins anew."""

    async def flow():
        await double.step(1)
        raise restart(cursor=7)

    told = story(flow).run_step(1)

    assert told.end.restart == b'{"cursor":7}'
    assert told.end.output is None


def test_numbers_go_on_after_a_restart(story):
    """So that no id is given twice."""

    async def flow():
        await double.step(1)

    told = story(flow, first=7)

    assert decode(told.recorded[8].body).headers["dispatchers-step"] == "shop.flow/1/8"


def test_patched(story):
    """True for what begins now; False for what has passed already; and neither ever changes."""

    async def old():
        for n in range(3):
            await double.step(n)

    async def new():
        seen = []
        for n in range(3):
            seen.append(patched("refunds"))
            await (refund if seen[-1] else double).step(n)
        return seen

    async def newest():
        for n in range(3):
            await refund.step(n)

    began_before = story(old).run_step(1)
    began_before.live.close()
    began_before.code = new
    began_before.live = began_before.cold()
    began_now = story(new)

    assert began_before.play().result == [False, False, False]
    assert began_now.play().result == [True, True, True]
    assert began_now.asked == ["mark refunds"] + ["step code.refund"] * 3
    # Once all that began before have ended, the question can go.
    again = began_now.cold(newest)
    assert again.take_commands() == []
    assert again.mismatch is None


def test_two_patches_of_which_one_is_gone(story):
    """Marks that are not asked for any more are passed over."""

    async def flow():
        return [patched("a"), patched("b"), await double.step(1)]

    async def without_a():
        return [patched("b"), await double.step(1)]

    told = story(flow).run_step(3)
    again = told.cold(without_a)

    assert told.result == [True, True, 2]
    assert again.end.output == b"[true,2]"
    assert again.mismatch is None


# The rest of the language


def test_publish(story):
    """Each state that was there when the code waited."""

    async def flow():
        publish(stage="lost")
        publish(stage="one")
        await double.step(1)
        publish(stage="two", more=[1, {"a": None}])

    assert story(flow).run_step(1).states == [
        {"stage": "one"},
        {"stage": "two", "more": [1, {"a": None}]},
    ]


@pytest.mark.parametrize("value", [object(), b"\xff", [{1: object()}]])
def test_a_state_that_cannot_be_carried_is_named(story, value):
    """D7: of several values, the one that has to be changed."""

    async def flow():
        publish(stage="one", more=value)

    assert "PayloadError: publish(more=...): " in story(flow).end.why


def test_time_and_chance_are_recorded(story):
    """The same at every replay, which the story compares; others in other executions."""

    async def flow():
        before = now()
        await double.step(int(random() * 1e9))
        after = now()
        await tags.step({str(uuid4())})
        return [before.isoformat(), after > before, chance.Random(random()).randint(0, 10)]

    told = story(flow).play()

    assert told.result[:2] == ["1970-01-12T13:46:40+00:00", True]
    assert uuid_of(told).version == 4
    assert told.arguments(1) != story(flow, first=5).arguments(6)


def uuid_of(told):
    return UUID(told.arguments(2)["names"][0])


def test_sets_among_arguments(story):
    """Written in another order, they are the same."""
    names = {f"name {n}" for n in range(50)}

    async def flow():
        order = list(names)
        chance.shuffle(order)
        return await tags.step({*()}.union(order, dict.fromkeys(reversed(order))))

    told = story(flow)
    request = decode(told.recorded[1].body)
    mixed = sorted(request.payload["names"])
    other = request.replace(payload={"names": mixed})
    told.recorded[1] = told.recorded[1]._replace(body=encode(other), digest=b"another")

    assert told.run_step(1).result == 50


def test_context_variables(story):
    """They work within; the worker's own are not seen."""
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("the worker's")

    async def sets(value):
        variable.set(value)
        await double.step(1)
        return variable.get()

    async def flow():
        before = variable.get()
        both = await asyncio.gather(sets("a"), sets("b"))
        return [before, *both, variable.get()]

    assert story(flow).play().result == ["default", "a", "b", "default"]
    assert variable.get() == "the worker's"


def test_gather_race_and_first(story):
    """Losers are cancelled; `first` is the first to succeed."""

    async def flow():
        return [
            await gather(double.step(1), ship(2)),
            await race(double.step(3), approval.receive(), asyncio.sleep(60)),
            await first(double.step(4), double.step(5), double.step(6)),
        ]

    told = story(flow).run_step(1).run_step(2).signal("approval", True)
    assert told.live.waits_for.startswith("step code.double (5), ")
    told.fail(5, OtherError()).run_step(7)

    assert told.result == [[2, "parcel 2"], True, 12]


def test_losers_end_before_the_winner_is_told(story):
    """Their `finally` has its steps."""

    async def loser():
        try:
            await approval.receive()
        finally:
            await refund.step(1)

    async def flow():
        return await race(double.step(1), loser())

    told = story(flow).run_step(1)

    assert told.end is None
    assert told.play().result == 2


def test_all_that_failed(story):
    """`first` raises all of it, `gather` the first; both refuse to wait for nothing."""

    async def flow():
        seen = []
        try:
            await first(double.step(1), double.step(2))
        except* StepError as failed:
            seen.append(len(failed.exceptions))
        try:
            await gather(double.step(1), double.step(2))
        except StepError as exc:
            seen.append(exc.message)
        for waits in (race, first):
            try:
                await waits()
            except ValueError as exc:
                seen.append(str(exc)[:6])
        return seen

    told = story(flow).fail(1, OtherError("a")).fail(2, OtherError("b")).fail(4, OtherError("c"))

    assert told.result == [2, "c", "race()", "first("]


def test_what_it_waits_for(story):
    """In words, the most important first."""

    async def flow():
        async with asyncio.timeout(60):
            await asyncio.gather(double.step(1), approval.receive())

    assert story(flow).live.waits_for == (
        "step code.double (2), signal approval, timer until 1970-01-12 13:47:40.000000 UTC"
    )


def test_what_is_left_behind_is_unwound(story):
    """The end of the workflow's own coroutine is the end."""
    ended = []

    async def beside():
        try:
            await approval.receive()
        finally:
            ended.append(1)
            await refund.step(1)

    async def flow():
        task_ = asyncio.create_task(beside())
        await double.step(1)
        assert not task_.done()

    told = story(flow, seen=False).run_step(1)

    assert told.end.status is Status.COMPLETED
    assert told.asked == ["step code.double"]
    assert ended == [1]


def test_under_a_running_loop_and_in_other_threads(story):
    """A turn may be anywhere."""

    async def flow():
        one = await double.step(1)
        two = await local(asyncio.sleep, 0.001, 5)
        return [one, two, await double.step(2)]

    async def within():
        told = story(flow).run_step(1)
        assert asyncio.get_running_loop().is_running()
        await asyncio.sleep(0)
        return told.run_local()

    told = asyncio.run(within())
    thread = threading.Thread(target=told.run_step, args=(3,))
    thread.start()
    thread.join()

    assert told.result == [2, 5, 4]


def test_a_call_that_blocks_is_told(story, caplog, monkeypatch):
    """One warning, with the cure."""
    monkeypatch.setattr("dispatchers.workflows._replay.SLOW", 0.01)

    async def flow():
        time.sleep(0.02)  # noqa: ASYNC251 - the mistake
        await double.step(1)

    with caplog.at_level(logging.WARNING, "dispatchers"):
        story(flow, seen=False)

    assert "kept its worker busy" in caplog.text


def test_an_exception_in_a_callback_is_logged(story, caplog):
    """The workflow goes on, as under asyncio; replays that have more to come are silent."""

    async def flow():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await double.step(1)
        return await double.step(2)

    told = story(flow, seen=False).play()
    told.compare()

    assert told.result == 4
    assert [each.exc_info[0] for each in caplog.records] == [ZeroDivisionError]


def test_the_result_of_a_step_must_travel(story):
    """The error names the task."""

    @task(name="code.unfit")
    def unfit(n: int) -> threading.Lock: ...

    async def flow():
        await unfit.step(1)

    told = story(flow, seen=False)

    assert "code.unfit" in told.end.why
    assert DeclarationError.__name__ in told.end.why
