"""Tasks that a project's workers run."""

from __future__ import annotations

import os
import signal
import time

from dispatchers import Backoff, current_run, task
from dispatchers.testing import Journal


@task(name="shop.note")
def note(journal: str, text: str) -> None:
    Journal(journal).write(text)


@task(name="shop.fail", max_attempts=3, backoff=Backoff(initial=0))
def fail(journal: str) -> None:
    Journal(journal).write(str(current_run().attempt))
    raise OSError("as asked")


@task(name="shop.linger")
def linger(journal: str) -> None:
    """Run for ever at the first delivery."""
    Journal(journal).write("began")
    while current_run().deliveries == 1:
        time.sleep(0.1)
    Journal(journal).write("ended")


@task(name="shop.die")
def die(journal: str) -> None:
    """End the process in the midst of the run."""
    Journal(journal).write("began")
    os.kill(os.getpid(), signal.SIGKILL)
