"""A queue, a journal, workers that are killed as planned, and what became of executions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dispatchers import DispatchRequest
from dispatchers._config.registry import load_backend
from dispatchers.journals import Entry, EntryKind, Record
from dispatchers.sqlite import SQLiteJournal
from dispatchers.testing import processes

HERE = Path(__file__).parent
PATIENCE = 100.0
RESULT = [2, 7, 4, 6]
"""Of `kills.flow`."""
EFFECTS = Counter(["double 1", "seven", "double 2", "double 3"])
"""Of `kills.flow`, where none is repeated."""


class Site:
    """A folder with all of it.

    Args:
        folder: An empty one.

        files: One for queue and journal, or two.

        environment: Further variables for its workers.
    """

    def __init__(self, folder: Path, files: int, **environment: str) -> None:
        self.folder, self.plans = folder, folder / "plans"
        self.plans.mkdir()
        queue = folder / "queue.db"
        self.path = queue if files == 1 else folder / "journal.db"
        (folder / "dispatchers.toml").write_text(
            f'tasks = ["kill_points", "kill_flows"]\nworkflows = "sqlite:{self.path}"\n'
            'target = "t"\n'
            f'[targets.t]\ndefault = {{backend = "sqlite", path = "{queue}", lease = 3}}\n'
            f'away = {{backend = "sqlite", path = "{folder}/away/queue.db"}}\n'
        )
        self.environment = {
            **os.environ,
            "DISPATCHERS_CONFIG": str(folder / "dispatchers.toml"),
            "KILL_PLANS": str(self.plans),
            "KILL_EFFECTS": str(folder / "effects"),
            "PYTHONPATH": str(HERE),
            **environment,
        }
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.reopen()

    def reopen(self) -> None:
        """Open queue and journal in this process."""
        kind: Any = load_backend("sqlite")
        self.queue = kind(path=str(self.folder / "queue.db"), alias="default")
        self.journal = SQLiteJournal(self.path)

    # Workers.

    def start_worker(self, alias: str = "default", **environment: str) -> int:
        with (self.folder / "log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "dispatchers", "worker", alias, "--concurrency", "1"],
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
            )
        self.workers[alias] = worker
        if alias == "default":
            (self.plans / "worker.pid").write_text(str(worker.pid))
        return worker.pid

    def stop_worker(self, alias: str = "default") -> None:
        worker = self.workers.pop(alias)
        worker.terminate()
        worker.wait(PATIENCE)

    def supervise(self) -> None:
        """Start workers again that have ended, as any supervisor does."""
        for alias, worker in list(self.workers.items()):
            if worker.poll() is not None:
                self.start_worker(alias)

    def close(self) -> None:
        for worker in self.workers.values():
            # With what it has started: a child that is stopped would stand there for ever.
            processes.kill(processes.family(worker.pid))
            worker.wait()
        self.queue.close()
        self.journal.close()

    # Plans.

    def plan(self, key: str, point: str, word: str) -> None:
        (self.plans / f"{key}.{point}").write_text(word)

    def drop(self, key: str, point: str) -> None:
        (self.plans / f"{key}.{point}").unlink()

    def happened(self, key: str, point: str) -> bool:
        """Tell whether a process came to a point."""
        return not (self.plans / f"{key}.{point}").exists()

    # Executions.

    def start(self, key: str, workflow: str = "kills.flow") -> str:
        request = DispatchRequest(task=workflow, payload={"key": key}, idempotency_key=key)
        self.queue.dispatch(request).raise_for_error()
        return f"{workflow}/{key}"

    def tell(self, execution: str, body: str) -> None:
        """Send the signal `go`."""
        event = {"kind": "signal", "name": "go", "body": body}
        payload = {"execution": execution, "event": event}
        name = execution.partition("/")[0] + "/turn"
        self.queue.dispatch(DispatchRequest(task=name, payload=payload)).raise_for_error()

    def until(self, true: Any) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.log()
            self.supervise()
            time.sleep(0.02)

    def ended(self, execution: str) -> Record:
        """Wait for the end of an execution, and judge its entries."""
        self.until(lambda: (r := self.look(execution)) is not None and r.status.is_end)
        self.until(lambda: not self.journal.unsent(execution, timeout=30))
        judge(self.entries(execution))
        record = self.look(execution)
        assert record is not None
        return record

    def result(self, execution: str) -> Any:
        record = self.ended(execution)
        assert record.status.name == "COMPLETED", record
        return json.loads(record.output or b"null")

    def look(self, execution: str) -> Record | None:
        return self.journal.look(execution, timeout=30)

    def entries(self, execution: str) -> list[Entry]:
        return list(self.journal.entries(execution, timeout=30))

    def effects(self, key: str) -> Counter[str]:
        file = self.folder / "effects"
        lines = file.read_text().splitlines() if file.exists() else []
        return Counter(line.partition(" ")[2] for line in lines if line.startswith(key + " "))

    def log(self) -> str:
        return (self.folder / "log").read_text()[-5000:]


def judge(entries: list[Entry]) -> None:
    """No gap, each command once, and no answer twice (D3, D4)."""
    assert [each.seq for each in entries] == list(range(1, len(entries) + 1))
    asked = Counter(each.number for each in entries if each.kind.is_command)
    told = (EntryKind.DONE, EntryKind.FAILED, EntryKind.FIRED)
    answered = Counter(each.number for each in entries if each.kind in told)
    assert asked == answered
    assert set(asked.values()) == {1}
