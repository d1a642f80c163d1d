"""Arguments from a command line, read with the eyes of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dispatchers._payload_errors import PayloadError
from dispatchers._task import AnyTask

from ._arguments import meant

__all__ = ["typed"]


def typed(
    task: AnyTask, given: Mapping[str, Any], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The arguments as the task's types have them: `zip=1234` is text where `zip` is.

    Args:
        task: The task.

        given: Arguments that are JSON already.

        pairs: Names and texts, which are JSON or text.

    Raises:
        PayloadError: They do not fit.
    """
    texts = dict(pairs)
    values = {**given, **meant(pairs)}
    while True:
        try:
            return task.codec.decode_python(values)
        except PayloadError as exc:
            name = exc.path.partition(".")[0].partition("[")[0]
            if name not in texts:
                raise PayloadError(f"task {task.name!r}: {exc}") from None
            values[name] = texts.pop(name)
