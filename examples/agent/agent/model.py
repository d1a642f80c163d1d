"""Stand-in for a language model: a function of what was said, without any network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Call(BaseModel):
    """A tool that the model wants to be used."""

    tool: Literal["weather", "email"]
    argument: str


class Message(BaseModel):
    """Message of the user, or the result of a tool."""

    role: Literal["user", "tool"]
    text: str


class Reply(BaseModel):
    """Reply of the model: tools to use, or the answer."""

    calls: list[Call] = []
    text: str = ""


def complete(messages: list[Message]) -> Reply:
    """Ask for the weather of each city of the question, then for a mail, then answer."""
    question, *said = [message.text for message in messages]
    cities = question.split(", ")
    if not said:
        return Reply(calls=[Call(tool="weather", argument=city) for city in cities])
    if len(said) == len(cities):
        return Reply(calls=[Call(tool="email", argument="; ".join(said))])
    return Reply(text=f"{len(cities)} cities; {said[-1]}")
