"""D5, D6: code that does not do what is recorded is stuck, without effect, until it is mended."""

from __future__ import annotations

import asyncio
import threading
import time
from random import random
from typing import Any

import pytest

from dispatchers import NotDurableError, PayloadError, task
from dispatchers._journal.values import EntryKind
from dispatchers.workflows import Signal, local, now, patched

approval = Signal("approval", bool)
module_level = asyncio.Queue()


@task(name="det.charge")
def charge(n: int) -> int:
    return n


@task(name="det.ship")
def ship(n: int) -> int:
    return n


@task(name="det.pack")
async def pack(n: int) -> int:
    return n


async def recorded_code():
    """What ran so far: two steps, a timer, two more steps; the last is not answered."""
    await charge.step(1)
    await ship.step(2)
    await asyncio.sleep(60)
    await charge.step(3)
    await ship.step(4)
    return "mended"


@pytest.fixture
def told(story):
    told = story(recorded_code)
    return told.run_step(1).run_step(2).fire(3).run_step(4)


def stuck(told, code) -> str:
    """The sentence of a replay that is stuck, which has no effect; mended code goes on."""
    again = told.cold(code)
    assert again.take_commands() == []
    assert again.mismatch is not None
    assert again.end is None
    assert not again.locals
    sentence = again.mismatch
    again.close()
    assert (again.mismatch, again.end) == (sentence, None)
    mended = told.cold()
    assert (mended.take_commands(), mended.mismatch) == ([], None)
    mended.close()
    return sentence


def test_commands_in_another_order(told):
    async def code():
        await ship.step(2)
        await charge.step(1)

    assert stuck(told, code).startswith(
        f"command 1: recorded is step det.charge, the code asks for step det.ship ({__file__}:"
    )


def test_a_command_that_is_missing_in_the_middle(told):
    async def code():
        await charge.step(1)
        await asyncio.sleep(60)

    sentence = stuck(told, code)
    assert "command 2: recorded is step det.ship, the code asks for timer until" in sentence
    assert "in code)" in sentence


def test_commands_that_are_missing_at_the_end(told):
    async def code():
        await charge.step(1)
        await ship.step(2)
        await asyncio.sleep(60)

    assert stuck(told, code) == (
        "command 4: recorded is step det.charge, the code ended without it"
    )


def test_a_command_that_is_missing_while_the_code_waits(told):
    async def code():
        await charge.step(1)
        await ship.step(2)
        await asyncio.sleep(60)
        await charge.step(3)
        await approval.receive()

    assert stuck(told, code) == (
        "command 5: recorded is step det.ship, the code waits for signal approval without it"
    )


def test_an_answer_to_what_the_code_never_asked_for(told):
    async def code():
        await approval.receive()

    assert stuck(told, code) == (
        "command 1: an answer to it is recorded, the code has asked for 0 only"
    )


def test_a_timer_that_the_code_never_asked_for(told):
    async def code():
        await charge.step(1)
        await ship.step(2)
        await approval.receive()

    assert "command 3: a timer has fired that the code has not asked for" in stuck(told, code)


def test_an_additional_command(told):
    async def code():
        await charge.step(1)
        await pack.step(1)
        await ship.step(2)

    assert "command 2: recorded is step det.ship, the code asks for step det.pack" in stuck(
        told, code
    )


def test_other_arguments(told):
    async def code():
        await charge.step(1)
        await ship.step(20)

    assert "command 2: recorded is the same with other arguments, the code asks for step" in stuck(
        told, code
    )


def test_another_kind(told):
    async def code():
        charge.dispatch(1)
        await ship.step(2)

    assert "recorded is step det.charge, the code asks for dispatch of det.charge" in stuck(
        told, code
    )


def test_another_name(told):
    async def code():
        await pack.step(1)

    assert "recorded is step det.charge, the code asks for step det.pack" in stuck(told, code)


def test_another_delay(told):
    async def code():
        await charge.step(1)
        await ship.step(2)
        await asyncio.sleep(61)

    assert "command 3: recorded is timer until 1970-01-12 13:47:40.004000 UTC, the code" in stuck(
        told, code
    )


def test_the_clock_of_the_machine(told):
    async def code():
        await charge.step(1)
        await ship.step(2)
        async with asyncio.timeout_at(time.time()):
            await approval.receive()

    assert "command 3: recorded is timer until" in stuck(told, code)


def test_a_clock_in_arguments(told):
    async def code():
        await charge.step(1)
        await ship.step(int(time.time()))

    assert "with other arguments" in stuck(told, code)


def test_chance(told):
    async def code():
        await charge.step(1)
        await ship.step(10 + int(random() * 1e9))

    assert "with other arguments" in stuck(told, code)


def test_the_order_of_a_set(told):
    async def code():
        for each in sorted({"ship", "charge"}, reverse=True):  # as another hash seed has it
            await (ship if each == "ship" else charge).step(1)

    assert "recorded is step det.charge, the code asks for step det.ship" in stuck(told, code)


def test_a_patch_that_moved(story):
    async def code():
        if patched("a"):
            await charge.step(1)
        await ship.step(2)

    async def moved():
        await charge.step(1)
        await ship.step(2)
        patched("a")

    other = story(code).run_step(2).run_step(3)

    assert "it was passed elsewhere, the code asks for patched a" in stuck(other, moved)


def test_a_foreign_future(told):
    foreign: Any = None

    async def code():
        nonlocal foreign
        foreign = asyncio.Future(loop=other)
        await charge.step(1)
        try:
            await foreign
        finally:
            await ship.step(2)

    other = asyncio.new_event_loop()
    sentence = stuck(told, code)
    other.close()

    assert "the workflow waits for a future of another event loop: do it in a task" in sentence
    assert "local(function, ...)" in sentence


def test_what_is_not_asyncios(told):
    class Foreign:
        def __await__(self):
            yield "trio's"

    async def code():
        await Foreign()

    assert "waits for str, which is not asyncio's" in stuck(told, code)


def test_a_thread(told):
    async def code():
        await asyncio.to_thread(time.sleep, 0)

    assert "a thread (`asyncio.to_thread`, `run_in_executor`)" in stuck(told, code)


def test_a_thread_that_touches_the_loop(told):
    errors = []

    async def code():
        future = asyncio.get_running_loop().create_future()

        def sets():
            try:
                future.set_result(1)
            except NotDurableError as exc:
                errors.append(exc)

        future.add_done_callback(print)
        thread = threading.Thread(target=sets)
        thread.start()
        thread.join()
        await charge.step(1)

    assert "another thread touches the workflow's event loop" in stuck(told, code)
    assert errors != []


def test_a_callback_from_another_thread(told):
    async def code():
        asyncio.get_running_loop().call_soon_threadsafe(print)

    assert "a callback from another thread" in stuck(told, code)


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("create_connection", "`loop.create_connection`"),
        ("subprocess_exec", "`loop.subprocess_exec`"),
        ("run_until_complete", "a loop within the loop"),
        ("add_reader", "`loop.add_reader`"),
        ("getaddrinfo", "`loop.getaddrinfo`"),
        ("set_task_factory", "tasks of its own making"),
        ("close", "`loop.close`"),
        ("stop", "`loop.stop`"),
    ],
)
def test_the_rest_of_the_loop(told, name, uses):
    async def code():
        getattr(asyncio.get_running_loop(), name)(None)

    assert uses in stuck(told, code)


def test_a_socket(told):
    async def code():
        await asyncio.open_connection("127.0.0.1", 1)

    assert "the workflow uses" in stuck(told, code)


def test_a_loop_within(told):
    async def code():
        coro = recorded_code()
        try:
            asyncio.run_coroutine_threadsafe(coro, asyncio.get_running_loop()).result()
        finally:
            coro.close()

    assert "a callback from another thread" in stuck(told, code)


def test_a_call_of_a_sync_task(told):
    async def code():
        charge(1)

    sentence = stuck(told, code)
    assert "calls the task 'det.charge', which would run again at every replay" in sentence
    assert "`.step(...)`" in sentence
    assert "`.function(...)`" in sentence


def test_waiting_for_nothing(told):
    async def code():
        await charge.step(1)
        await ship.step(2)
        await asyncio.sleep(60)
        await charge.step(3)
        ship.dispatch(4)
        await asyncio.Event().wait()

    async def at_once():
        await asyncio.Event().wait()

    assert "dispatch of det.ship" in stuck(told, code)
    assert "waits for nothing that could come" in stuck(told, at_once)


def test_errors_that_are_swallowed(told):
    """Catching the refusal does not make it durable."""

    async def code():
        for _ in range(3):
            try:
                await asyncio.to_thread(print)
            except NotDurableError:
                continue
        await charge.step(1)

    assert "a thread" in stuck(told, code)


def test_an_import_within(told):
    async def code():
        import colorsys  # noqa: F401

        return await recorded_code()

    again = told.cold(code)

    assert again.take_commands() == []
    assert again.mismatch is None
    again.close()


def test_the_result_of_a_step_that_does_not_fit_any_more(told, monkeypatch):
    """Mended code reads it."""
    monkeypatch.setattr(type(charge.results), "decode", _refuse)

    again = told.cold()

    assert "step det.charge (1): the recorded result does not fit" in again.mismatch
    assert again.take_commands() == []
    again.close()


def _refuse(self, body):
    raise PayloadError("no")


def test_what_stuck_code_asks_for(told):
    """New commands before the mistake are neither recorded nor run."""

    async def code():
        await charge.step(1)
        await ship.step(2)
        await asyncio.sleep(60)
        await charge.step(3)
        ship.step(4)
        step = local(print, "ran")
        pack.dispatch(5)
        try:
            await asyncio.to_thread(print)
        finally:
            pack.dispatch(6)
            await step

    assert "a thread" in stuck(told, code)


def test_new_commands_after_the_recorded_ones(told):
    """Code may go on in another way where nothing is recorded yet."""

    async def code():
        await charge.step(1)
        await ship.step(2)
        await asyncio.sleep(60)
        await charge.step(3)
        await ship.step(4)
        await pack.step(5)

    again = told.cold(code)
    again.feed(told.entry(EntryKind.DONE, 5, body=b"4"))

    assert [c.name for c in again.take_commands()] == ["det.pack"]
    again.close()


def test_the_workflows_own_clock_agrees(story):
    async def code():
        await charge.step(int(now().timestamp()))

    assert story(code).asked == ["step det.charge"]
