"""The record of a recording dispatcher: work, due times, answers."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dispatchers._errors import ErrorCategory, RejectedError, nearest
from dispatchers._models.keyed import conflict, digest_of
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse
from dispatchers._payload.errors import PayloadError
from dispatchers._runtime.clock import now
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._tasks.task import AnyTask, catalogue

from ._failures import InjectedFailure

__all__ = ["Book", "Dispatched", "Job", "arguments_of", "check_arguments", "described", "name_of"]


@dataclass(frozen=True, slots=True)
class Dispatched:
    """One piece of work as it was dispatched."""

    request: DispatchRequest
    """The request, after the hooks."""
    body: bytes = field(repr=False)
    """Its envelope."""
    dispatcher: str
    """The alias it went through."""
    arguments: Mapping[str, object]
    """The arguments as the handler gets them, typed; JSON values where no task is registered."""

    @property
    def task(self) -> str:
        """The registered name of the task."""
        return self.request.task

    def __str__(self) -> str:
        """The call, its alias and its options, on one line."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.task}({given}) through {self.dispatcher!r}{_options(self.request)}"


SHOWN = ("queue", "delay", "eta", "expires", "priority", "idempotency_key", "max_attempts")


def _options(request: DispatchRequest) -> str:
    used = [name for name in SHOWN if getattr(request, name) is not None]
    return "".join(f", {name}={getattr(request, name)}" for name in used)


def arguments_of(request: DispatchRequest, body: bytes) -> Mapping[str, object]:
    """The typed arguments of an envelope, JSON values where no task of that name is registered.

    Raises:
        RejectedError: They do not fit the task; a worker would find that out later.
    """
    task = catalogue.find(request.task)
    if task is None:
        return dict(request.payload)
    try:
        # Of the bytes, as a worker reads them: what does not survive its way through JSON shows
        # here.
        payload: dict[str, object] = task.reader(body)["payload"]
    except PayloadError as exc:
        raise RejectedError(ErrorCategory.INVALID, f"task {task.name!r}: {exc}") from exc
    return {**_as_declared(task, payload), **payload}


def _as_declared(task: AnyTask, payload: Mapping[str, object]) -> dict[str, object]:
    """In the order of the signature, with the defaults of what was not given."""
    declared = inspect.signature(task.function).parameters.values()
    return {each.name: payload.get(each.name, each.default) for each in declared}


def name_of(task: AnyTask | str) -> str:
    """The registered name that a task, or a task with options, is dispatched under.

    Raises:
        TypeError: It is not a task.
    """
    if isinstance(task, str):
        found = catalogue.find(task)
        return found.name if found else task
    if isinstance(name := getattr(task, "name", None), str):
        return name
    raise TypeError(f"a task or its name is wanted, not {type(task).__name__}")


def check_arguments(name: str, arguments: Mapping[str, object]) -> None:
    """Refuse arguments that the task does not have: a misspelt one would match nothing.

    Raises:
        TypeError: One is unknown; the message has the nearest name.
    """
    task = catalogue.find(name)
    known = arguments if task is None else task.codec.parameters
    for argument in arguments:
        if argument not in known:
            near = nearest(argument, known)
            raise TypeError(f"task {name!r} has no parameter {argument!r}{near}")


@dataclass(slots=True)
class Job:
    """Work that waits to be run."""

    dispatched: Dispatched
    due: datetime
    expires: datetime | None
    number: int
    attempt: int = 1
    deliveries: int = 1

    @property
    def order(self) -> tuple[int, datetime, int]:
        """Higher priority first, then what was due first, then what came first."""
        return -(self.dispatched.request.priority or 0), self.due, self.number


class Book:
    """Everything recorded, shared by the dispatchers of all aliases; serves many threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ahead = timedelta()
        self.failures: list[InjectedFailure] = []
        self.clear()
        renew_after_fork(self)

    def clear(self) -> None:
        """Forget the work and the answers; the clock and the failures stay."""
        self.entries: list[Dispatched] = []
        self.waiting: list[Job] = []
        self.dead: list[Dispatched] = []
        self._answers: dict[int, DispatchResponse] = {}
        self._keys: dict[tuple[str, str], bytes | None] = {}
        self._count = 0

    @property
    def now(self) -> datetime:
        """The virtual instant."""
        return now() + self.ahead

    @property
    def answers(self) -> list[DispatchResponse]:
        """Every response, in order."""
        return list(self._answers.values())

    def answer(self, response: DispatchResponse) -> None:
        """Write a response down, once."""
        # By identity, because a response is announced by the dispatcher and by the hook.
        self._answers[id(response)] = response

    def failure(self, request: DispatchRequest) -> InjectedFailure | None:
        """The wish by which `request` fails, if there is one."""
        with self.lock:
            found = next((each for each in self.failures if each.takes(request)), None)
            # A new list: other threads may be walking through the old one.
            self.failures = [each for each in self.failures if not each.spent]
            return found

    def add(self, request: DispatchRequest, body: bytes, alias: str) -> bool:
        """Write work down; false if its key is known already.

        Raises:
            RejectedError: The key is known for other arguments.
        """
        entry = Dispatched(request, body, alias, arguments_of(request, body))
        with self.lock:
            key, digest = (request.task, request.key), digest_of(request)
            if key in self._keys:
                # None is unknown, and contradicts nothing.
                if None not in (digest, self._keys[key]) and digest != self._keys[key]:
                    raise conflict(request.task)
                return False
            self._keys[key] = digest
            self.entries.append(entry)
            self.waiting.append(self._job(entry))
            return True

    def dead_letter(self, entry: Dispatched) -> None:
        """Keep work as dead; its key is free again."""
        self.dead.append(entry)
        # As real backends do, so that a replay is not taken for a duplicate.
        self._keys.pop((entry.request.task, entry.request.key), None)

    def _job(self, entry: Dispatched) -> Job:
        """Spans count from the virtual instant of dispatch, instants are instants."""
        request = entry.request
        self._count += 1
        spans = self.ahead if request.eta is None else timedelta()
        expires = request.expires_at
        if expires is not None and isinstance(request.expires, timedelta):
            expires += self.ahead
        return Job(entry, (request.due or request.created_at) + spans, expires, self._count)

    def due(self) -> list[Job]:
        """Return the work that is due, in running order."""
        with self.lock:
            instant = self.now
            return sorted((j for j in self.waiting if j.due <= instant), key=lambda j: j.order)

    def take(self) -> Job | None:
        """Take the next piece of work that is due."""
        with self.lock:
            jobs = self.due()
            if jobs:
                self.waiting.remove(jobs[0])
            return jobs[0] if jobs else None

    def _after_fork(self) -> None:
        # Another thread of the parent may have held it, and does not exist in the child.
        self.lock = threading.RLock()


def described(task: str | None, arguments: Mapping[str, Any]) -> str:
    """`'shop.send_welcome' with user_id=1`, for messages."""
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{repr(task) if task else 'anything'}{f' with {given}' if given else ''}"
