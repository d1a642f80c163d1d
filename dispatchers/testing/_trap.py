"""A trap that springs at a line: a kill, a failure or an interrupt in the midst of a step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any, Self

__all__ = ["Trap"]


class Trap:
    """Calls something before the n-th line of some files that this thread passes."""

    def __init__(self, files: Collection[str], line: int, spring: Callable[[], None]) -> None:
        self._files, self._line, self._spring = files, line, spring
        self.passed = 0

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    @property
    def sprung(self) -> bool:
        return self.passed >= self._line

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        del arg
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self.passed += 1
            if self.passed == self._line:
                self._spring()
        return self._trace
