"""Arguments from a command line, converted to the task's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dispatchers._payload.errors import PayloadError
from dispatchers._tasks.task import AnyTask

from ._arguments import meant

__all__ = ["typed"]


def typed(
    task: AnyTask, given: Mapping[str, Any], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Convert the arguments to the task's types.

    Args:
        task: The task.

        given: Arguments that are JSON already.

        pairs: Names and texts, which are JSON or text.

    Raises:
        PayloadError: They do not fit.
    """
    texts = dict(pairs)
    values = {**given, **meant(pairs)}
    try:
        _refuse_repeated(pairs)
        task.codec.bind((), values)  # a misspelt name is told before the one it leaves missing
    except PayloadError as exc:
        raise PayloadError(f"task {task.name!r}: {exc}") from None
    # One argument at a time: the codec names the first that does not fit, which then is read as
    # text.
    while True:
        try:
            return task.codec.decode_python(values)
        except PayloadError as exc:
            name = exc.path.partition(".")[0].partition("[")[0]
            # Already tried as text, or not a text at all: then it does not fit.
            if name not in texts:
                raise PayloadError(f"task {task.name!r}: {exc}") from None
            values[name] = texts.pop(name)


def _refuse_repeated(pairs: Sequence[tuple[str, str]]) -> None:
    names = [name for name, _ in pairs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise PayloadError("is given twice: drop one", repeated[0])
