"""Assertions over recorded dispatches: which task, how often, which arguments."""

from __future__ import annotations

from collections.abc import Mapping

from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse
from dispatchers._tasks.task import AnyTask

from ._book import Book, Dispatched, check_arguments, described, name_of

__all__ = ["Assertions"]


class Assertions:
    """The questions, and the assertions, about a book."""

    _book: Book

    @property
    def dispatched(self) -> list[Dispatched]:
        """The work that was taken, in order, with typed arguments."""
        return list(self._book.entries)

    @property
    def requests(self) -> list[DispatchRequest]:
        """The requests of the work that was taken, in order."""
        return [entry.request for entry in self._book.entries]

    @property
    def responses(self) -> list[DispatchResponse]:
        """Every answer, in order, those that are not `ok` among them.

        An answer to arguments that do not fit is given before any dispatcher is reached: it is
        here only where the recorder is installed.
        """
        return self._book.answers

    @property
    def dead(self) -> list[Dispatched]:
        """The work that `run_due` found to have failed permanently."""
        return list(self._book.dead)

    def of(self, task: AnyTask | str, /, **arguments: object) -> list[Dispatched]:
        """The dispatches of a task, with these arguments among theirs.

        Raises:
            TypeError: The task has no such parameter.
        """
        name = name_of(task)
        # First: a misspelt argument fits nothing, and `assert_none` would pass by mistake.
        check_arguments(name, arguments)
        return [each for each in self._book.entries if _fits(each, name, arguments)]

    def assert_one(self, task: AnyTask | str, /, **arguments: object) -> Dispatched:
        """The one dispatch of a task with these arguments among its own.

        Raises:
            AssertionError: There is none, or more than one; the message shows what there was.

            TypeError: The task has no such parameter.
        """
        return self.assert_many(task, 1, **arguments)[0]

    def assert_many(
        self, task: AnyTask | str, count: int, /, **arguments: object
    ) -> list[Dispatched]:
        """The dispatches of a task with these arguments among theirs, `count` of them.

        Raises:
            AssertionError: There are more or fewer; the message shows what there was.

            TypeError: The task has no such parameter.
        """
        found = self.of(task, **arguments)
        if len(found) != count:
            wanted = described(name_of(task), arguments)
            raise AssertionError(self._told(f"{count} of {wanted} expected, found {len(found)}"))
        return found

    def assert_none(self, task: AnyTask | str | None = None, /, **arguments: object) -> None:
        """Nothing was dispatched; with a task, nothing of it with these arguments.

        Raises:
            AssertionError: Something was; the message shows it.

            TypeError: The task has no such parameter.
        """
        found = self._book.entries if task is None else self.of(task, **arguments)
        if found:
            wanted = described(None if task is None else name_of(task), arguments)
            raise AssertionError(self._told(f"none of {wanted} expected, found {len(found)}"))

    def clear(self) -> None:
        """Forget the work and the answers; failures that were asked for stay."""
        with self._book.lock:
            self._book.clear()

    def _told(self, what: str) -> str:
        """The message of a failed assertion: tests show what was dispatched."""
        # All of it: the usual cause is a dispatch that differs in one argument.
        taken = [f"  {entry}" for entry in self._book.entries]
        refused = [f"  {_refusal(each)}" for each in self._book.answers if each.error]
        lines = [f"{what}; dispatched were:", *(taken or ["  nothing"])]
        return "\n".join(lines + (["not taken were:", *refused] if refused else []))


def _fits(entry: Dispatched, task: str, arguments: Mapping[str, object]) -> bool:
    own = entry.arguments
    return entry.task == task and all(n in own and own[n] == v for n, v in arguments.items())


def _refusal(response: DispatchResponse) -> str:
    task = response.request.task if response.request else "a request"
    error = response.error
    return f"{task}: {response.status}, {error.category if error else ''}: " + (
        error.message if error else ""
    )
