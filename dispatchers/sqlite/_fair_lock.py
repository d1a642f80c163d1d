"""A fair lock among processes: the one that has waited longest writes next.

SQLite has no queue for its lock: a process that tries at the right moment gets it, and the last is
best placed to get it again (measured: waits beyond two seconds among 16 busy processes). So
those that wait say so by locks on the bytes of a file beside it, one more byte the longer they
wait, and none tries while another holds a byte that it does not. The system takes the locks of
a process that dies. Where such locks do not work, all just try.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

__all__ = ["FairLock"]

# Seconds of waiting for each byte.
_AGES: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


_MODE = 0o600


_NOT, _SHARED, _ALONE = range(3)


class FairLock:
    """One process's place among those that wait. Used under the lock of its connection.

    Args:
        path: The file that is waited for.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}-turn"
        self._file: int | None = None
        self._held = 0
        # Windows has no `fcntl`: there, all just try.
        self._works = sys.platform != "win32"

    def comes(self, age: float) -> bool:
        """Tell whether no other has waited notably longer.

        Args:
            age: Seconds for which this process has waited.
        """
        # The file is created by the first process that waits, not by each that writes.
        if not self._opened(os.O_CREAT):
            return True
        level = sum(age >= step for step in _AGES)
        if level > self._held and self._lock(_SHARED, self._held, level):
            self._held = level
        # At the highest level there is none to wait for, so that all of them try.
        if level == len(_AGES) or not self._lock(_ALONE, level, len(_AGES)):
            return level == len(_AGES) or not self._works
        # Taken only to learn that no other holds a higher byte.
        self._unlock(level, len(_AGES))
        return True

    def others_wait(self) -> bool:
        """Tell whether others wait, for a process that has not begun to."""
        return self._opened(0) and not self.comes(0.0)

    def over(self) -> None:
        """This process waits no more."""
        if self._held:
            self._unlock(0, self._held)
            self._held = 0

    def close(self) -> None:
        """Give everything back; it is opened again when it is needed."""
        if self._file is not None:
            # POSIX drops all locks that the process has on the file with this descriptor.
            os.close(self._file)
        self._file, self._held = None, 0

    def _opened(self, create: int) -> bool:
        if self._file is None and self._works:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | create, _MODE)
            except FileNotFoundError:  # none has ever waited
                return False
            except OSError:
                self._works = False
        return self._works

    def _lock(self, how: int, start: int, end: int) -> bool:
        try:
            self._change(how, start, end)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # the file system has no locks
            self._works = False
            return False
        return True

    def _unlock(self, start: int, end: int) -> None:
        with contextlib.suppress(OSError):
            self._change(_NOT, start, end)

    def _change(self, how: int, start: int, end: int) -> None:
        assert self._file is not None
        assert sys.platform != "win32"
        import fcntl

        kinds = (fcntl.LOCK_UN, fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(self._file, kinds[how], end - start, start)
