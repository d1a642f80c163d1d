"""The worker's route, and a bare view beside it that parses the same JSON and answers 204."""

from __future__ import annotations

from dispatchers_fastapi import worker_router
from fastapi import FastAPI, Request, Response

from dispatchers import task
from dispatchers.http import EndpointSettings

SECRET = "a-secret-for-the-benchmark"


@task(name="benchmarks.fastapi.async")
async def async_task(number: int, text: str) -> None: ...


@task(name="benchmarks.fastapi.sync")
def sync_task(number: int, text: str) -> None: ...


app = FastAPI()


@app.post("/bare")
async def bare(request: Request) -> Response:
    await request.json()
    return Response(status_code=204)


app.include_router(worker_router(EndpointSettings(worker=True, secrets=SECRET)))
