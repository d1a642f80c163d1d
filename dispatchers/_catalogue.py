"""The tasks of this process by name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ._errors import nearest
from ._fork import renew_after_fork
from ._payload_errors import DeclarationError

if TYPE_CHECKING:
    from ._task import AnyTask

__all__ = ["Catalogue", "catalogue"]


class Catalogue:
    """Tasks by their registered names, and by the names they had."""

    def __init__(self) -> None:
        self._tasks: dict[str, AnyTask] = {}
        self._former: dict[str, AnyTask] = {}
        self._lock = threading.RLock()
        renew_after_fork(self)

    def add(self, task: AnyTask) -> None:
        """Register a task under its name and its former names.

        Raises:
            DeclarationError: Another task has one of the names.
        """
        with self._lock:
            for name in (task.name, *task.former_names):
                self._refuse_taken(name, task)
            replaced = self._tasks.get(task.name)
            self._former = {n: t for n, t in self._former.items() if t is not replaced}
            self._tasks[task.name] = task
            self._former.update(dict.fromkeys(task.former_names, task))

    def _refuse_taken(self, name: str, task: AnyTask) -> None:
        owner = self._tasks.get(name) or self._former.get(name)
        if owner is None or _same_again(owner, task):
            return
        raise DeclarationError(
            f"two tasks are named {name!r}: {owner.origin} ({owner.definition}) and "
            f"{task.origin} ({task.definition}); give one of them another name with "
            "@task(name=...)"
        )

    def remove(self, task: AnyTask) -> None:
        """Forget a task: for tests, and for tools that reload modules."""
        with self._lock:
            self._tasks = {n: t for n, t in self._tasks.items() if t is not task}
            self._former = {n: t for n, t in self._former.items() if t is not task}

    def find(self, name: str) -> AnyTask | None:
        """The task that has, or had, this name; None if there is none."""
        return self._tasks.get(name) or self._former.get(name)

    def get(self, name: str) -> AnyTask:
        """The task that has, or had, this name.

        Raises:
            LookupError: There is none; the message has the nearest name.
        """
        if (task := self.find(name)) is None:
            raise LookupError(f"no task {name!r} is registered{nearest(name, self._tasks)}")
        return task

    def all(self) -> list[AnyTask]:
        """Every task, by name."""
        return [self._tasks[name] for name in sorted(self._tasks)]

    def __repr__(self) -> str:
        return f"<catalogue of {len(self._tasks)} tasks>"

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


def _same_again(old: AnyTask, new: AnyTask) -> bool:
    """A module that is loaded anew (reload, notebook cell, `__mp_main__`) defines tasks anew."""
    if old is new:
        return True
    same = old.name == new.name and old.origin == new.origin
    return same and not old.definition.beside(new.definition)


catalogue = Catalogue()
