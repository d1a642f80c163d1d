"""`assert_replays`: exported executions, replayed by today's code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

from dispatchers._errors import nearest
from dispatchers._tasks.task import catalogue
from dispatchers.workflows import Workflow
from dispatchers.workflows._export import read_export

from ._replays import ReplayError, differences

__all__ = ["assert_replays"]

AnyWorkflow = Workflow[..., Any]


def assert_replays(
    *patterns: str | os.PathLike[str], workflows: Iterable[AnyWorkflow] | None = None
) -> None:
    """Replay executions that `dispatchers executions export` has written, with the code as it is.

    Nothing is run but the code of the workflows: no step, no local step, no timer.

    Args:
        patterns: Paths, or patterns such as `tests/histories/*.json`; `**` stands for any folders.

        workflows: The workflows, where their modules need not have registered them.

    Raises:
        ReplayError: An execution does not replay; the message says of each why. Also where a
            pattern finds no file.

        ConfigurationError: A file is no export.
    """
    known = {flow.name: flow for flow in (_registered() if workflows is None else workflows)}
    problems = [
        f"{path}: {problem}"
        for pattern in patterns
        for path in _paths(os.fspath(pattern))
        for problem in _problems(path, known)
    ]
    if problems or not patterns:
        raise ReplayError("\n".join(problems) or "no path is given: nothing was replayed")


def _registered() -> Iterator[AnyWorkflow]:
    return (task for task in catalogue.all() if isinstance(task, Workflow))


def _paths(pattern: str) -> list[Path]:
    # A name may contain what a pattern gives a meaning.
    found = [pattern] if Path(pattern).is_file() else sorted(glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns, too
    if not found:
        raise ReplayError(f"{pattern}: no such file, so that nothing was replayed")
    return [Path(path) for path in found]


def _problems(path: Path, known: dict[str, AnyWorkflow]) -> Iterator[str]:
    record, entries = read_export(path.read_bytes(), str(path))
    flow = known.get(record.workflow)
    if flow is None:
        yield (
            f"no workflow {record.workflow!r} is registered{nearest(record.workflow, known)}: "
            "import its module, or give workflows=[...]"
        )
        return
    yield from (f"{record.id}: {each}" for each in differences(record, entries, flow.versions))
