"""The engine, broken in one place each time: the tests of determinism must see it."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import inspect
import random
import sys
import time
import uuid
from pathlib import Path
from types import ModuleType

import pytest

from dispatchers.workflows import _commands, _inbox, _language, _loop, _replay, _unwinding
from dispatchers.workflows._commands import Commands
from dispatchers.workflows._futures import DurableFuture, DurableTask
from dispatchers.workflows._guarded import GuardedCoroutine
from dispatchers.workflows._inbox import Inbox
from dispatchers.workflows._letter import Letter
from dispatchers.workflows._loop import DurableLoop
from dispatchers.workflows._replay import Replay


def nothing(*args, **kwargs):
    return None


def last_first(self):
    while self._ready and not self.halted and not self.ended:
        self._ready.pop()._run()


def unread_number(self, entry):
    future = self._commands.answered(entry.number)
    if future is not None:
        self._settle(future, entry)


def unread_timer(self, entry):
    timer = self._commands.timers.pop(entry.number, None)
    if timer is not None:
        self._loop.fire(timer)


def unchecked(self):
    taken, self._commands.new = self._commands.new, []
    return taken


def halts_only(self, why):
    self.mismatch = self.mismatch or why


def runs_here(self, executor, function, *args):
    future = self.create_future()
    future.set_result(function(*args))
    return future


def newest_first(self, name, body):
    queue = self._queue(name)
    queue.put_nowait(body)
    queue._queue.rotate(1)


def by_address(self):
    return random.getrandbits(40)


def without_halt(loop, context):
    for each in reversed(loop.tasks):
        if not each.done():
            each._log_destroy_pending = False
            each.context.run(loop.run, _unwinding._in_task, loop, each, each.coroutine.inner)
    loop.halt()


def from_zero(execution, first, *args):
    return Commands(execution, 0, *args)


MUTANTS = [
    (Commands, "_compare", nothing, "test_determinism.test_commands_in_another_order"),
    (Commands, "_compare", nothing, "test_determinism.test_another_name"),
    (Commands, "_compare", nothing, "test_determinism.test_another_delay"),
    (Commands, "_compare", nothing, "test_determinism.test_an_additional_command"),
    (Letter, "equals", lambda self, entry: True, "test_determinism.test_other_arguments"),
    (Letter, "equals", lambda self, entry: False, "test_code.test_sets_among_arguments"),
    (Commands, "missing", None, "test_determinism.test_commands_that_are_missing_at_the_end"),
    (
        Commands,
        "missing",
        None,
        "test_determinism.test_a_command_that_is_missing_while_the_code_waits",
    ),
    (
        Replay,
        "_answer",
        unread_number,
        "test_determinism.test_an_answer_to_what_the_code_never_asked_for",
    ),
    (Replay, "_fire", unread_timer, "test_determinism.test_a_timer_that_the_code_never_asked_for"),
    (Replay, "take_commands", unchecked, "test_determinism.test_what_stuck_code_asks_for"),
    (Replay, "_check_awaited", nothing, "test_determinism.test_waiting_for_nothing"),
    (Commands, "halt", halts_only, "test_determinism.test_what_stuck_code_asks_for"),
    (GuardedCoroutine, "send", None, "test_determinism.test_a_foreign_future"),
    (DurableLoop, "check_thread", nothing, "test_determinism.test_a_thread_that_touches_the_loop"),
    (DurableLoop, "run_in_executor", runs_here, "test_determinism.test_a_thread"),
    (
        DurableLoop,
        "call_soon_threadsafe",
        DurableLoop.call_soon,
        "test_determinism.test_a_callback_from_another_thread",
    ),
    (
        Commands,
        "call",
        lambda self, task, step: task.function,
        "test_determinism.test_a_call_of_a_sync_task",
    ),
    (Commands, "_passes", lambda self, name: True, "test_code.test_patched"),
    (
        _commands,
        "Random",
        lambda seed: random.Random(),
        "test_code.test_time_and_chance_are_recorded",
    ),
    (_language, "UUID", lambda **_: uuid.uuid4(), "test_code.test_time_and_chance_are_recorded"),
    (DurableLoop, "time", lambda self: time.time(), "test_asyncio.test_a_timeout_fires"),
    (DurableLoop, "run_ready", last_first, "test_asyncio.test_a_lock"),
    (DurableFuture, "__hash__", by_address, "test_mutants.wide_set"),
    (DurableTask, "__hash__", by_address, "test_mutants.wide_set_of_tasks"),
    (Inbox, "put", newest_first, "test_code.test_signals_of_one_name_keep_their_order"),
    (_replay, "Context", contextvars.copy_context, "test_code.test_context_variables"),
    (_replay, "unwind", without_halt, "test_mutants.unwound"),
    (_replay, "Commands", from_zero, "test_code.test_numbers_go_on_after_a_restart"),
    (_replay, "_keep", nothing, "test_mutants.collected"),
]


def wide_set(story):
    """Sets of steps are iterated alike."""
    double = MODULES["test_code"].double

    async def flow():
        for each in {double.step(n) for n in range(30)}:
            each.cancel()
            await double.step(each.number)

    told = story(flow)
    for number in range(31, 35):
        told.done(number, 1)


def wide_set_of_tasks(story):
    """Sets of tasks are iterated alike."""
    double = MODULES["test_code"].double

    async def flow():
        tasks = [asyncio.create_task(asyncio.sleep(0, n)) for n in range(30)]
        done, _ = await asyncio.wait(tasks)
        for each in done:
            await double.step(each.result())

    told = story(flow)
    for number in range(1, 5):
        told.done(number, 1)


def unwound(story):
    """Nothing leaves a `finally` of parked code."""
    MODULES["test_unwinding"].closed(story(MODULES["test_unwinding"].finally_waits))


def collected(story):
    """What is dropped stays."""
    MODULES["test_unwinding"].test_replays_that_are_dropped_are_not_collected(story)


def module(name: str) -> ModuleType:
    full = f"{__name__.rpartition('.')[0]}.{name}".lstrip(".")
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


# Now: tasks that a test registers are forgotten at its end.
MODULES = {
    name: module(name)
    for name in ("test_asyncio", "test_code", "test_determinism", "test_unwinding")
}


def killer(name: str):
    file, _, function = name.partition(".")
    return globals()[function] if file == "test_mutants" else getattr(MODULES[file], function)


def given(function, story):
    names = inspect.signature(function).parameters
    if "told" not in names:
        return {"story": story}
    told = story(MODULES["test_determinism"].recorded_code)
    return {"told": told.run_step(1).run_step(2).fire(3).run_step(4)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.dispatchers_unchecked
@pytest.mark.parametrize(
    ("owner", "name", "broken", "sees"),
    MUTANTS,
    ids=[f"{m[0].__name__.rpartition('.')[2]}.{m[1]}-{m[3].rpartition('.')[2]}" for m in MUTANTS],
)
def test_a_broken_engine_is_seen(story, monkeypatch, owner, name, broken, sees):
    """Its test passes on the engine as it is, and fails on the broken one."""
    function = killer(sees)
    function(**given(function, story))
    prepared = given(function, story)
    if owner is GuardedCoroutine:
        monkeypatch.setattr(DurableLoop, "_guarded", lambda self, coro: coro)
    else:
        monkeypatch.setattr(owner, name, broken)

    with pytest.raises(BaseException) as seen:
        function(**prepared)

    monkeypatch.undo()
    assert not isinstance(seen.value, KeyboardInterrupt)


def test_there_are_enough():
    """Of the engine's parts, not of one."""
    assert len(MUTANTS) >= 25
    assert len({mutant[0] for mutant in MUTANTS}) >= 10
    assert {_inbox, _loop} <= set(sys.modules.values())
