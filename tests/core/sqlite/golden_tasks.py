"""Tasks whose calls are in the files of former versions."""

from __future__ import annotations

import os
from pathlib import Path

from dispatchers import task


@task(name="golden.note")
def note(text: str) -> None:
    with Path(os.environ["GOLDEN_NOTES"]).open("a") as file:
        file.write(f"{text}\n")


@task(name="golden.fail", max_attempts=1)
def fail(text: str) -> None:
    raise TypeError(text)
