"""Transactions of callers, to which rows are added: the protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

from dispatchers._errors import ErrorCategory, RejectedError

__all__ = ["OnEnd", "Statements", "Target", "certain_unless_alone"]

T = TypeVar("T")
Statements = Iterable[tuple[str, Sequence[object]]]
"""SQL with `?` for values, and the values."""
OnEnd = Callable[[bool], object]
"""Called once it is known: true after the commit, false after a rollback."""


class Target(ABC):
    """Target of a row: a connection or a session."""

    dialect: str
    is_async: bool = False
    """Only coroutines can use it."""

    def commits_itself(self) -> bool:
        """Tell whether each statement is committed by itself, as no transaction is open."""
        return False

    @abstractmethod
    def write(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements.

        Args:
            statements: SQL with `?`, and its values.

            timeout: Seconds.

            savepoint: Undo them alone where one fails, so that the transaction can go on.
        """

    async def awrite(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """The same for a coroutine; by default without waiting."""
        self.write(statements, timeout, savepoint=savepoint)

    async def acall(self, function: Callable[[], T]) -> T:
        """Call a function in the thread to which the transaction of a coroutine belongs."""
        return function()

    def follow(self, told: OnEnd) -> bool:
        """Have a function told of the transaction's end; false where that cannot be known."""
        del told
        return False


class certain_unless_alone:  # noqa: N801 - as `plainly`
    """Give `target.commits_itself()`, and say of errors that nothing was written, if not so.

    Of a transaction nothing is committed unless all of it is. Asked before, as a connection that
    was lost meanwhile cannot tell any more.

    Raises:
        RejectedError: For any `Exception` in the block, unless what is written commits itself.
    """

    def __init__(
        self, target: Target, category: Callable[[Exception], ErrorCategory | None]
    ) -> None:
        self._target, self._category = target, category
        self._alone = False

    def __enter__(self) -> bool:
        try:
            self._alone = self._target.commits_itself()
        except Exception as exc:
            raise RejectedError.because(exc, self._category(exc)) from exc
        return self._alone

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        if isinstance(exc, Exception) and not self._alone:
            raise RejectedError.because(exc, self._category(exc)) from exc
