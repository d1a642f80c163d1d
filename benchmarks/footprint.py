"""What an import costs, and what an item that waits in memory weighs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import dispatchers

from ._measure import Figure
from .tasks import small

MODEL = "from pydantic import BaseModel\nclass Order(BaseModel):\n    number: int\n    text: str\n"
ITEMS = 20_000


def imports(rounds: int = 25) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "one_model.py").write_text(MODEL)
        codes = ("pass", "import one_model", "import dispatchers")
        times = [[_fresh(code, folder) for code in codes] for _ in range(rounds)]
    bare, model, ours = (median(column) for column in zip(*times, strict=True))
    detail = f"({ours * 1e3:.0f} ms - {bare * 1e3:.0f} ms) over ({model * 1e3:.0f} ms - same)"
    case = "`import dispatchers` over importing one pydantic model, less the interpreter"
    yield Figure(case, 1.4, (ours - bare) / (model - bare), detail)


def _fresh(code: str, folder: str) -> float:
    started = perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return perf_counter() - started


def memory() -> Iterator[Figure]:
    with dispatchers.override(default={"backend": "memory", "capacity": ITEMS + 1}):
        small.dispatch(number=0, text="warm").raise_for_error()
        payload = len(small.request(number=1, text="abc").payload.json)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(ITEMS):
            small.dispatch(number=number, text="abc")
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    each = (after - before) / ITEMS
    detail = f"{each:.0f} bytes, {payload} of them payload"
    yield Figure(
        "memory per item waiting in `memory`, less its payload", 1024, each - payload, detail, " B"
    )
