"""huey's queue on SQLite: run as a module it is filled, the consumer imports it."""

from __future__ import annotations

import os
import sys

from huey import SqliteHuey

queue = SqliteHuey(filename=os.environ.get("BENCH_HUEY", "huey.db"), fsync=True, results=False)


@queue.task()
def small(number, text):
    pass


if __name__ == "__main__":
    from benchmarks.huey_peer import small as registered

    for number in range(int(sys.argv[1])):
        registered(number, "abc")
