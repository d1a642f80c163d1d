"""The steps of the agent, and the loop that joins them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import BaseModel

from dispatchers import current_run, task
from dispatchers.workflows import Signal, publish, workflow

from .model import Call, Message, Reply, complete

MOST_ROUNDS = 10
NEEDS_APPROVAL = {"email"}


class Decision(BaseModel):
    """What a human says of a tool call."""

    ok: bool


decision = Signal("decision", Decision)


@task(name="agent.think", max_attempts=5, time_limit=120)
def think(messages: list[Message]) -> Reply:
    """Ask the model; a real one is slow, costs money, and gives another answer each time."""
    noted("think")
    return complete(messages)


@task(name="agent.use", max_attempts=3, time_limit=60)
def use(call: Call) -> str:
    """Use a tool."""
    noted(f"{call.tool} {call.argument}")
    return f"sunny in {call.argument}" if call.tool == "weather" else "the mail is sent"


def noted(what: str) -> None:
    """Leave a file for each step that ran; the same one if it runs again."""
    folder = Path("done")
    folder.mkdir(exist_ok=True)
    (folder / current_run().request.id).write_text(what)


@workflow(name="agent.answer")
async def answer(question: str) -> str:
    """Ask the model, and use the tools that it wants, until it answers."""
    messages = [Message(role="user", text=question)]
    for _ in range(MOST_ROUNDS):
        reply = await think.step(messages)
        if not reply.calls:
            return reply.text
        results = await asyncio.gather(*[carried_out(call) for call in reply.calls])
        messages += [Message(role="tool", text=text) for text in results]
    return "I give up"


async def carried_out(call: Call) -> str:
    """Use a tool, once a human has agreed where that is needed."""
    if call.tool in NEEDS_APPROVAL:
        publish(asks=call.model_dump())
        agreed = await decision.receive()
        publish(asks=None)
        if not agreed.ok:
            return "a human said no"
    return await use.step(call)
