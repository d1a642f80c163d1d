"""The tasks of this process by name."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from dispatchers._errors import nearest
from dispatchers._payload.errors import DeclarationError
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.importing import prepare_late_imports
from dispatchers._tasks.definition import TaskDefinition

T = TypeVar("T", bound=TaskDefinition)

NONE = ", as none is: import the module that has it, or name the module in `tasks`"
"""What to do where no module with tasks was imported."""


class Catalogue(Generic[T]):
    """Tasks by their registered names, and by the names they had."""

    def __init__(self) -> None:
        self._tasks: dict[str, T] = {}
        self._former: dict[str, T] = {}
        self._lock = threading.RLock()
        renew_after_fork(self)

    def add(self, task: T) -> None:
        """Register a task under its name and its former names.

        Raises:
            DeclarationError: Another task has one of the names.
        """
        # Here, as a program with a task uses the library; `import dispatchers` alone stays cheap.
        prepare_late_imports()
        with self._lock:
            for name in (task.name, *task.former_names):
                self._refuse_taken(name, task)
            # A module that is reloaded defines its tasks again, maybe with fewer former names.
            replaced = self._tasks.get(task.name)
            self._former = {n: t for n, t in self._former.items() if t is not replaced}
            self._tasks[task.name] = task
            self._former.update(dict.fromkeys(task.former_names, task))

    def _refuse_taken(self, name: str, task: T) -> None:
        owner = self._tasks.get(name) or self._former.get(name)
        if owner is None or _same_again(owner, task):
            return
        raise DeclarationError(
            f"two tasks are named {name!r}: {owner.origin} ({owner.definition}) and "
            f"{task.origin} ({task.definition}); give one of them another name with "
            "@task(name=...)"
        )

    def remove(self, task: T) -> None:
        """Forget a task: for tests, and for tools that reload modules."""
        with self._lock:
            # New dicts: `find` reads without the lock, on the path of every run.
            self._tasks = {n: t for n, t in self._tasks.items() if t is not task}
            self._former = {n: t for n, t in self._former.items() if t is not task}

    def find(self, name: str) -> T | None:
        """Return the task that has, or had, this name, or None."""
        return self._tasks.get(name) or self._former.get(name)

    def get(self, name: str) -> T:
        """Return the task that has, or had, this name.

        Raises:
            LookupError: There is none; the message has the nearest name.
        """
        if (task := self.find(name)) is None:
            cure = nearest(name, self._tasks) if self._tasks else NONE
            raise LookupError(f"no task {name!r} is registered{cure}")
        return task

    def all(self) -> list[T]:
        """Every task, by name."""
        return [self._tasks[name] for name in sorted(self._tasks)]

    def __repr__(self) -> str:
        return f"<catalogue of {len(self._tasks)} tasks>"

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


def _same_again(old: TaskDefinition, new: TaskDefinition) -> bool:
    """Tell whether a module loaded anew defines the same task again."""
    if old is new:
        return True
    same = old.name == new.name and old.origin == new.origin
    return same and not old.definition.beside(new.definition)
