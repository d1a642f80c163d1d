"""The worker process of a queue that calls back over HTTP: `uvicorn bakery.worker:app`."""

from dispatchers_fastapi import lifespan, worker_router
from fastapi import FastAPI

app = FastAPI(title="Bakery's worker", lifespan=lifespan())
app.include_router(worker_router())
