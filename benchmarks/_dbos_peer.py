"""Steps of DBOS on SQLite, as its documentation shows them; prints seconds a step, as JSON.

Run as a file: it needs nothing but DBOS, which may live in an environment of its own.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter, process_time

from dbos import DBOS


@DBOS.step()
def add_one(number: int) -> int:
    return number + 1


@DBOS.workflow()
def steps(number: int) -> int:
    found = 0
    for _ in range(number):
        found = add_one(found)
    return found


def main(path: str, number: int, rounds: int) -> None:
    url = f"sqlite:///{path}"
    options = {"name": "bench", "system_database_url": url, "run_admin_server": False}
    DBOS(config={**options, "log_level": "ERROR"})
    DBOS.launch()
    steps(5)
    walls, work = [], process_time()
    for _ in range(rounds):
        began = perf_counter()
        assert steps(number) == number
        walls.append((perf_counter() - began) / number)
    cpu = (process_time() - work) / number / rounds
    DBOS.destroy()
    print(json.dumps({"wall": sorted(walls)[len(walls) // 2], "cpu": cpu}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
