"""Handing over commands that are recorded, again and again until they have left."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from pydantic_core import from_json

from dispatchers._config.api import get_dispatcher
from dispatchers._errors import (
    ConfigurationError,
    ErrorCategory,
    RejectedError,
)
from dispatchers._journal.errors import JournalError
from dispatchers._journal.failure import Failure
from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Answer, Command, EntryKind, Record, Status
from dispatchers._models.envelope import decode
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers._runtime import clock
from dispatchers._runtime.log import say, say_once
from dispatchers._worker.waking import woken
from dispatchers.workflows._known_children import answer_for

__all__ = ["hand_over", "hand_over_due", "runs_in_call"]

TIMEOUT = 5.0
"""Seconds for one call of the journal."""
CHUNK = 100
"""Commands that are handed over, and noted, at once."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
"""Seconds before commands are tried again that a dispatcher did not take."""

FORGOTTEN_AFTER = 60.0
"""Seconds after which a step or child leaves once more whose dispatcher keeps nothing over a death.

Then as long as it is old: an answer that has not come after hours is hardly ever lost."""

NOTHING: Mapping[int, DispatchRequest] = MappingProxyType({})

REFUSED_FOR_GOOD = frozenset(
    {
        ErrorCategory.INVALID,
        ErrorCategory.TOO_LARGE,
        ErrorCategory.UNSUPPORTED,
        ErrorCategory.CONFLICT,
    }
)
"""Refusals for what the request itself is. Of all others it is tried again, for as long as it
takes: what is down, full, closed to us or wrongly deployed (no such queue, no such dispatcher) is
mended by people, and no fault of the workflow."""

TAKEN = Failure(
    "the idempotency key of the step is that of other work, which does not answer it: "
    "give the step another, or none",
    category="conflict",
    attempts=0,
)
"""Answer to a step that its dispatcher takes for other work."""

REQUEST_ID = re.compile("[0-9a-f]{32}")
"""Ids as the library gives them: a backend may have names of its own, which tell nothing."""

_pauses: dict[str, float] = {}
"""The last pause of each dispatcher that does not take work: it doubles until one is taken."""


def hand_over(
    journal: Journal,
    record: Record,
    commands: Iterable[Command],
    known: Mapping[int, DispatchRequest] = NOTHING,
) -> None:
    """Hand over commands of an execution, and note what has left. Raises no `JournalError`.

    Args:
        journal: Where they are recorded: what is not noted there leaves once more.

        record: The execution.

        commands: Those of a kind in `LEAVING`.

        known: Their requests by number, as far as they need not be read from the envelopes.
    """
    by_route: defaultdict[str, list[Command]] = defaultdict(list)
    for command in commands:
        by_route[command.route].append(command)
    for route, all_of_it in by_route.items():
        for start in range(0, len(all_of_it), CHUNK):
            _hand_over_chunk(journal, record, route, all_of_it[start : start + CHUNK], known)


def hand_over_due(journal: Journal, record: Record) -> None:
    """Hand over what an earlier turn has left behind, if it is time to try that again."""
    now = clock.time()
    unsent = journal.unsent(record.id, timeout=TIMEOUT)
    hand_over(journal, record, [each.command for each in unsent if each.next_try <= now])


def runs_in_call(commands: Iterable[Command]) -> bool:
    """Tell whether handing over runs the work, which answers before it returns."""
    return any(_runs_here(route) for route in {command.route for command in commands})


def _runs_here(route: str) -> bool:
    try:
        return get_dispatcher(route).capabilities.runs_here
    except (ConfigurationError, RejectedError):
        return False


def _hand_over_chunk(
    journal: Journal,
    record: Record,
    route: str,
    commands: Sequence[Command],
    known: Mapping[int, DispatchRequest],
) -> None:
    requests = [_request(record, each, known.get(each.number)) for each in commands]
    try:
        responses = get_dispatcher(route).dispatch_many(requests)
    except (ConfigurationError, RejectedError) as exc:
        words = "steps of %s do not leave: %s"
        say_once(hand_over, logging.ERROR, words, record.workflow, str(exc))
        left, again = [], {}
    else:
        pairs = list(zip(commands, responses, strict=True))
        left = [command for command, r in pairs if _has_left(journal, record, command, r)]
        again = {
            command.number: clock.time() + max(FORGOTTEN_AFTER, _age(request))
            for (command, response), request in zip(pairs, requests, strict=True)
            if command in left and _may_be_forgotten(command, response)
        }
    stayed = [command for command in commands if command not in left]
    again |= dict.fromkeys((each.number for each in stayed), clock.time() + _pause(route, stayed))
    _note(journal, record, [each.number for each in left], again)


def _may_be_forgotten(command: Command, response: DispatchResponse) -> bool:
    """Tell whether work that was taken may be lost with a process; a plain dispatch leaves once."""
    taken = response.status in (DispatchStatus.ACCEPTED, DispatchStatus.DUPLICATE)
    return taken and not response.durable and command.kind is not EntryKind.SEND


def _age(request: DispatchRequest) -> float:
    return clock.time() - request.created_at.timestamp()


def _request(
    record: Record, command: Command, request: DispatchRequest | None = None
) -> DispatchRequest:
    """Return the request of a command, with the trace of the execution's start."""
    # Under the id that was recorded, whatever was resumed since: it may have left already.
    request = request or decode(command.body or b"")
    if record.headers in (b"", b"{}"):
        return request
    return request.replace(headers={**from_json(record.headers), **request.headers})


def _has_left(
    journal: Journal, record: Record, command: Command, response: DispatchResponse
) -> bool:
    error = response.error
    if response.status is DispatchStatus.FAILED and command.kind is EntryKind.STEP:
        return _is_answered(journal, record, command, _failure(response))
    if response.status is DispatchStatus.REJECTED and error and not error.retryable:
        failure = Failure(error.message, error.category.value, error.exception_type, attempts=0)
        return _is_refused(journal, record, command, failure)
    if response.status is DispatchStatus.DUPLICATE and command.kind is EntryKind.CHILD:
        return _child_was_there(journal, record, command)
    if response.status is DispatchStatus.DUPLICATE and command.kind is EntryKind.STEP:
        return not _is_others(response) or _is_answered(journal, record, command, TAKEN)
    return response.ok or response.status is DispatchStatus.FAILED


def _is_others(response: DispatchResponse) -> bool:
    """Tell whether a key is that of another request, as far as the backend names it."""
    known = response.task_id
    return known not in (None, response.request_id) and bool(REQUEST_ID.fullmatch(known or ""))


def _is_refused(journal: Journal, record: Record, command: Command, failure: Failure) -> bool:
    """Answer for a command that is refused for good; false if it is to be tried again."""
    if failure.category not in REFUSED_FOR_GOOD:
        return False
    if command.kind is not EntryKind.SEND:
        return _is_answered(journal, record, command, failure)
    words = "%s: a dispatch of %s is refused and left out (%s): %s"
    say(logging.ERROR, words, record.id, command.name, failure.category, failure.message)
    return True


def _child_was_there(journal: Journal, record: Record, command: Command) -> bool:
    """Answer for a child that begins no more; false as long as it has not begun."""
    request = _request(record, command)
    try:
        child = journal.look(f"{request.task}/{request.key}", timeout=TIMEOUT)
        if child is None or child.status is Status.EXPECTED:
            return False  # its start is on the way, or another's of that key
        answer_for(journal, child, record.id, command.number, request.id)
    except JournalError as exc:
        say(logging.ERROR, "a child of %s is handed over once more: %s", record.workflow, exc)
        return False
    return True


def _is_answered(journal: Journal, record: Record, command: Command, failure: Failure) -> bool:
    """Answer for a step or child that will not run, or failed in the call for the last time."""
    source = _request(record, command).id
    answer = Answer(EntryKind.FAILED, failure.encode(), clock.time(), source)
    try:
        # The run itself has answered unless it asked for another attempt, which will not come.
        if not journal.is_answered(record.id, command.number, source=source, timeout=TIMEOUT):
            answered = journal.answer(record.id, command.number, answer, timeout=TIMEOUT)
            woken(answered.wake)
    except JournalError as exc:
        say(logging.ERROR, "a command of %s is handed over once more: %s", record.workflow, exc)
        return False
    return True


def _failure(response: DispatchResponse) -> Failure:
    if response.exception is not None:
        return Failure.of(response.exception)
    error = response.error
    if error is None:
        return Failure("")
    return Failure(error.message, error.category.value, error.exception_type)


def _note(
    journal: Journal, record: Record, left: Sequence[int], again: Mapping[int, float]
) -> None:
    try:
        journal.sent(record.id, left, again=again, timeout=TIMEOUT)
    except JournalError as exc:
        # Harmless: they leave once more under the same ids, and their answers are known.
        say_once(hand_over, logging.ERROR, "the journal of executions: %s", str(exc))


def _pause(route: str, stayed: Sequence[Command]) -> float:
    if not stayed:
        _pauses.pop(route, None)
        return 0.0
    pause = min(2 * _pauses.get(route, FIRST_PAUSE / 2), LONGEST_PAUSE)
    _pauses[route] = pause
    return pause
