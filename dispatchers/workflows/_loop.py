"""A deterministic event loop: first in, first out, with timers that the journal fires."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from math import isnan
from threading import get_ident
from typing import Any, TypeVar, TypeVarTuple

from dispatchers._models.failures import is_of_the_runner
from dispatchers.workflows._futures import DurableFuture, DurableTask, Unwound
from dispatchers.workflows._guarded import GuardedCoroutine
from dispatchers.workflows._handles import Handle, Host, Timer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


MAX_CALLBACKS = 1_000_000
"""Callbacks between two entries; each await of something that is not there yet takes a few."""

SPINS = (
    f"the workflow goes on without waiting, for {MAX_CALLBACKS} callbacks of its loop: nothing can "
    "change meanwhile; await the step, timer or signal itself, in place of `asyncio.sleep(0)` in a "
    "loop"
)


class DurableLoop(asyncio.AbstractEventLoop):
    """Event loop of one execution. It runs within a plain call, in any thread, also in a loop's.

    Args:
        host: Keeps the timers.

        started: The time it begins with, in seconds since the epoch.
    """

    def __init__(self, host: Host, started: float) -> None:
        self.host = host
        self._ready: deque[asyncio.Handle] = deque()
        self._serial = 0
        self._thread: int | None = None
        self.now = started
        self.halted = False
        """Nothing runs on it any more."""
        self.interruption: BaseException | None = None
        """Raised in the code by what runs it: nothing of this turn counts."""
        self._handled: BaseException | None = None
        """Handled by the caller meanwhile."""
        self.ended = False
        """The workflow's own coroutine has ended: what it left behind goes no further."""
        self.tasks: list[DurableTask[Any]] = []
        """All that are not done: the garbage collector must find none."""
        self.generators: list[Any] = []
        self._most = 64

    # Driving it.

    def run(self, callback: Callable[..., object], *args: object) -> None:
        """Call something as the loop that is running in this thread."""
        outer = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        # Dropped generators are kept: their `finally` must not run when memory happens to be short.
        sys.set_asyncgen_hooks(firstiter=self._keep_generator, finalizer=None)
        asyncio._set_running_loop(self)
        self._thread, self._handled = get_ident(), sys.exc_info()[1]
        try:
            callback(*args)
        finally:
            self._thread = self._handled = None
            asyncio._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)

    def run_ready(self) -> None:
        """Run callbacks until none is ready, or the workflow has ended; not for ever."""
        ready = self._ready
        for _ in range(MAX_CALLBACKS):
            if not ready or self.halted or self.ended:
                return
            handle = ready.popleft()
            if not handle._cancelled:
                try:
                    # As `Handle._run` does, without the call.
                    handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
                except BaseException as exc:  # noqa: BLE001 - asyncio's way: logged
                    self.note(exc)
                    self._failed(handle, exc)
        self.host.halt(SPINS)

    def _failed(self, handle: asyncio.Handle, exc: BaseException) -> None:
        message = f"exception in {handle!r}"
        self.call_exception_handler({"message": message, "exception": exc, "handle": handle})

    def note(self, exc: BaseException) -> None:
        """Let the code go no further once it was interrupted, whatever it makes of that."""
        if exc is not self._handled and is_of_the_runner(exc):
            self.interruption = self.interruption or exc
            self.halt()

    def halt(self) -> None:
        """Run nothing any more."""
        self.halted = True
        self._ready.clear()

    def next_serial(self) -> int:
        """Return 1, 2, 3 ..."""
        self._serial += 1
        return self._serial

    def fire(self, timer: Timer) -> None:
        """Run a timer that is due."""
        self.now = max(self.now, timer.when())
        self._ready.append(timer)

    # As asyncio uses it.

    def time(self) -> float:
        """Return the time of the entry that was fed last, in seconds since the epoch."""
        return self.now

    def get_debug(self) -> bool:
        """Return False."""
        return False

    def is_running(self) -> bool:
        """Return True."""
        return True

    def is_closed(self) -> bool:
        """Return False."""
        return False

    def create_future(self) -> DurableFuture[Any]:
        """Return a future of this loop."""
        future: DurableFuture[Any] = DurableFuture(loop=self)
        self._serial = future.serial = self._serial + 1
        return future

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: Context | None = None,
        **_: Any,
    ) -> DurableTask[Any]:
        """Run a coroutine beside the others."""
        if self.halted:
            coro.close()
            raise Unwound
        self.check_thread()
        task = DurableTask(
            self._guarded(coro),
            loop=self,
            serial=self.next_serial(),
            name=None if name is None else str(name),
            context=contextvars.copy_context() if context is None else context,
        )
        self._keep(task)
        return task

    def _guarded(self, coro: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        if asyncio.isfuture(coro):
            # A step is: an async task's plain call is none yet.
            raise TypeError(f"{coro} runs already, and needs no task: await it, or `gather` it")
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        return GuardedCoroutine(coro, self, self._refuse_waiting, self.note)

    def _keep(self, task: DurableTask[Any]) -> None:
        self.tasks.append(task)
        # In whole lots: a callback for each task would cost more.
        if len(self.tasks) + len(self.generators) > self._most:
            self._forget_ended()

    def _keep_generator(self, generator: Any) -> None:
        self.generators.append(generator)
        if len(self.tasks) + len(self.generators) > self._most:
            self._forget_ended()

    def _forget_ended(self) -> None:
        self.tasks = [task for task in self.tasks if not task.done()]
        self.generators = [each for each in self.generators if each.ag_frame is not None]
        self._most = max(64, 2 * (len(self.tasks) + len(self.generators)))

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Run a callback after those that are ready."""
        handle = Handle(callback, args, self, context)
        if not self.halted:
            if self._thread != get_ident():
                self.check_thread()
            self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback after so many seconds, even if that is a year."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback at an instant, in seconds since the epoch."""
        if self.halted:
            raise Unwound
        if isnan(when):  # as asyncio does since Python 3.13
            raise ValueError("a timer's instant is NaN, and would never come")
        self.check_thread()
        timer = Timer(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined] # its cancel() tells the loop then
        if when <= self.now:
            timer.number = 0
            self._ready.append(timer)
        else:
            self.host.start_timer(timer)
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        if isinstance(timer, Timer):
            self.host.stop_timer(timer)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what went wrong in a callback."""
        if not self.halted:
            self.host.report(context)

    default_exception_handler = call_exception_handler

    def get_task_factory(self) -> None:
        """Return None."""

    def get_exception_handler(self) -> None:
        """Return None."""

    def __repr__(self) -> str:
        return f"<durable loop at {self.now}>"

    # Refusals.

    def check_thread(self) -> None:
        """Refuse another thread than the one that runs the code."""
        if self._thread != get_ident():
            raise self.host.refuse("another thread touches the workflow's event loop", IN_A_STEP)

    def _refuse_waiting(self, waited: object) -> BaseException:
        if self.halted:
            return Unwound()
        return self.host.refuse(f"waits for {_shown(waited)}", IN_A_STEP)


IN_A_STEP = (
    "do it in a task and await its `.step(...)`, or in a function and await `local(function, ...)`"
)

_CURES = {
    "run_in_executor": "a thread (`asyncio.to_thread`, `run_in_executor`)",
    "call_soon_threadsafe": "a callback from another thread",
    "run_forever": "a loop within the loop",
    "run_until_complete": "a loop within the loop",
    "set_task_factory": "tasks of its own making",
    "set_exception_handler": "an exception handler of its own",
    "set_debug": "asyncio's debug mode",
}
"""Words for methods of a loop whose names do not say what they are used for."""


def _shown(waited: object) -> str:
    if asyncio.isfuture(waited):
        return "a future of another event loop"
    return f"{type(waited).__name__}, which is not asyncio's"


def _refusal(name: str) -> Callable[..., Any]:
    def refused(self: DurableLoop, *args: object, **kwargs: object) -> Any:
        del args, kwargs
        if self.halted:
            raise Unwound
        raise self.host.refuse(f"uses {_CURES.get(name, f'`loop.{name}`')}", IN_A_STEP)

    return refused


for _name, _method in vars(asyncio.AbstractEventLoop).items():
    # Whatever a later Python adds is refused as well.
    if callable(_method) and not _name.startswith("__") and _name not in vars(DurableLoop):
        setattr(DurableLoop, _name, _refusal(_name))
