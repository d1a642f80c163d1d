"""Functions that the code of a workflow calls, beside asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar, overload
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json

from dispatchers._errors import NotDurableError
from dispatchers._payload.errors import PayloadError
from dispatchers._tasks.recorder import recording
from dispatchers.workflows._commands import Commands
from dispatchers.workflows._futures import Restart

P = ParamSpec("P")
T = TypeVar("T")


def within(what: str) -> Commands:
    """Return the commands of the workflow that is running here.

    Args:
        what: The function that asks, for the message.

    Raises:
        NotDurableError: None is running here.
    """
    found = recording.get()
    if isinstance(found, Commands):
        return found
    raise NotDurableError(
        f"{what} is for the code of a workflow, and none is running here: call it in a function "
        "with @workflow, not in a task, a thread or a plain function"
    )


@overload
def local(
    function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> asyncio.Future[T]: ...
@overload
def local(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]: ...
def local(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
    """Have a function called in the turn, without a queue between; its result is recorded.

    It runs at least once, outside of the workflow's event loop, and not again once its result is
    recorded. Awaiting one that failed raises `StepError`. The arguments need not fit JSON, the
    result must.

    Raises:
        NotDurableError: No workflow is running here.

        DeclarationError: The function's result cannot travel.
    """
    return within("local()").local(function, args, kwargs)


def publish(**state: object) -> None:
    """Publish a state, readable from outside; it replaces the one before.

    Args:
        state: Values that JSON can carry.

    Raises:
        NotDurableError: No workflow is running here.

        PayloadError: A value cannot be carried.
    """
    commands = within("publish()")
    try:
        body = to_json(state)
    except PydanticSerializationError as exc:
        raise PayloadError(f"publish({_unfit(state)}=...): {exc}") from exc
    commands.publish(body)


def _unfit(state: dict[str, object]) -> str:
    """Return the name of the first value that JSON cannot carry."""
    for name, value in state.items():
        try:
            to_json(value)
        except PydanticSerializationError:
            return name
    return ""


def now() -> datetime:
    """Return the instant of the entry that the code has seen last, aware UTC.

    Raises:
        NotDurableError: No workflow is running here.
    """
    return datetime.fromtimestamp(within("now()").loop.now, UTC)


def random() -> float:
    """Return a number from 0 to 1, the same at every replay.

    `random.Random(random())` has choices and the rest.

    Raises:
        NotDurableError: No workflow is running here.
    """
    return within("random()").chance.random()


def uuid4() -> UUID:
    """Return a random UUID, the same at every replay.

    Raises:
        NotDurableError: No workflow is running here.
    """
    return UUID(int=within("uuid4()").chance.getrandbits(128), version=4)


def patched(name: str) -> bool:
    """Tell whether to take the new way: True unless the execution has passed here before it.

    The answer is the same for the whole life of an execution. Once none is left that began with
    the former code, the call can go, and with it the former way.

    Args:
        name: A name for the change, used once.

    Raises:
        NotDurableError: No workflow is running here.

        DeclarationError: The name is no text of 1 to 512 characters.
    """
    return within("patched()").patched(name)


def restart(*args: Any, **kwargs: Any) -> BaseException:
    """Return the exception that begins the execution anew, with an empty journal.

    It goes on with the latest version of the workflow, whose parameters these are.

    `raise restart(cursor=page)` at the end of each page keeps an endless workflow short.

    Args:
        args: The workflow's parameters.

        kwargs: The workflow's parameters.

    Raises:
        NotDurableError: No workflow is running here.

        PayloadError: The arguments do not fit the workflow.
    """
    return Restart(within("restart()").again(*args, **kwargs))
