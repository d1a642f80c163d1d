"""The web process: `uvicorn bakery.web:app`."""

from datetime import date
from decimal import Decimal
from typing import Annotated
from uuid import UUID, uuid4

from dispatchers_fastapi import after_response, lifespan
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from dispatchers import Dispatcher

from . import books, tasks

app = FastAPI(title="Bakery", lifespan=lifespan())

Later = Annotated[Dispatcher, after_response()]


class Order(BaseModel):
    """What a customer wants."""

    cake: str
    price: Decimal
    day: date


@app.post("/orders", status_code=201)
def place(order: Order, later: Later) -> dict[str, str]:
    """Book an order; it is baked once the customer has the answer."""
    number = uuid4()
    books.book(number, order.cake)
    bake = tasks.bake.options(dispatcher=later, idempotency_key=f"bake-{number}")
    response = bake.dispatch(number, order.cake, order.price, order.day)
    return {"id": str(number), "baking": response.status}


@app.post("/orders/{number}/reminder")
async def remind(number: UUID) -> dict[str, str]:
    """Have the customer reminded, and say at once whether the queue has it."""
    response = await tasks.remind.adispatch(number)
    if not response:
        raise HTTPException(503, "try again later")
    return {"reminder": response.status}


@app.get("/orders/{number}")
def look_up(number: UUID) -> dict[str, object]:
    """How far an order is."""
    if (found := books.look_up(number)) is None:
        raise HTTPException(404)
    cake, baked, reminded = found
    return {"cake": cake, "baked": baked, "reminded": bool(reminded)}
