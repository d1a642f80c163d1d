"""What the guard raises when a call does not come back, or is not begun."""

from __future__ import annotations

__all__ = ["GuardClosedError", "GuardFullError", "GuardTimeoutError"]


class GuardFullError(RuntimeError):
    """The call was refused before it began: too many earlier ones still hang."""


class GuardClosedError(GuardFullError):
    """The call was refused before it began: the guard is closed or the interpreter ends."""


class GuardTimeoutError(TimeoutError):
    """The call did not return in time.

    Args:
        message: What did not return, and after how long.

        started: True if the call had begun, so that its effect is unknown; False if it never
            began and never will.
    """

    def __init__(self, message: str, *, started: bool) -> None:
        super().__init__(message)
        self.started = started
