"""Waiting for several at once, where those that are not needed any more are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(*awaitables: Awaitable[T]) -> list[T]:
    """Wait for all, and return their results in order; the first failure cancels the others.

    Raises:
        Exception: The failure that was recorded first.
    """
    futures = [asyncio.ensure_future(each) for each in awaitables]
    try:
        return list(await asyncio.gather(*futures))
    finally:
        await _cancelled(futures)


async def race(*awaitables: Awaitable[T]) -> T:
    """Wait for the first to end, and return its result; the others are cancelled.

    Raises:
        ValueError: There is none to wait for.

        Exception: The failure, where the first to end has failed.
    """
    futures = _several("race", awaitables)
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return next(each for each in futures if each.done()).result()
    finally:
        await _cancelled(futures)


async def first(*awaitables: Awaitable[T]) -> T:
    """Wait for the first to succeed, and return its result; the others are cancelled.

    Raises:
        ValueError: There is none to wait for.

        ExceptionGroup: All have failed.
    """
    futures = _several("first", awaitables)
    try:
        return await _first_success(futures)
    finally:
        await _cancelled(futures)


async def _first_success(futures: Sequence[asyncio.Future[T]]) -> T:
    left = futures
    while left:
        await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for each in left:
            if each.done() and not each.cancelled() and each.exception() is None:
                return each.result()
        left = [each for each in left if not each.done()]
    raise BaseExceptionGroup("all have failed", [_failure(each) for each in futures])


def _failure(future: asyncio.Future[Any]) -> BaseException:
    if future.cancelled():
        return asyncio.CancelledError()
    return future.exception() or AssertionError(future)


def _several(name: str, awaitables: Iterable[Awaitable[T]]) -> Sequence[asyncio.Future[T]]:
    futures = [asyncio.ensure_future(each) for each in awaitables]
    if not futures:
        raise ValueError(f"{name}() waits for one of several, and was given none")
    return futures


async def _cancelled(futures: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what is not done, and wait until it has ended."""
    left = [each for each in futures if not each.done()]
    for each in left:
        each.cancel()
    if left:
        await asyncio.wait(left)
