"""A single value to typed JSON and back, exactly: a task's result, a signal."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from math import isfinite
from typing import Any, TypeVar

from pydantic import JsonValue
from pydantic_core import SchemaError, from_json

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers._payload.scalars import atoms_of
from dispatchers._payload.signature import annotation_of_result

_WRAPPERS = frozenset({Awaitable, Coroutine})
_IN_JSON = frozenset({int, float, str, bool, type(None)})
"""Scalar types that JSON has itself: a value of the annotated one is the value that was written."""


class ResultCodec:
    """Codec that carries one value through JSON exactly, or refuses it.

    Args:
        annotation: The value's type; `Any` and `JsonValue` take any JSON.

        what: A word for the value in messages.

    Raises:
        DeclarationError: A value of that type could not travel exactly.
    """

    def __init__(self, annotation: Any, what: str = "result") -> None:
        self._what = what
        self._prefix = b'{"%b":' % what.encode()
        # The one argument of a function: arguments and results are held to the same exactness.
        self._codec = PayloadCodec(_taking(_plain(annotation), what))
        self._as_read = _IN_JSON & atoms_of(_plain(annotation)).keys()
        try:
            self._codec.check()
        except DeclarationError as exc:
            words = str(exc).replace(f"parameter '{what}", f"the '{what}")
            raise type(exc)(words) from exc
        except SchemaError as exc:
            raise DeclarationError(f"the types within the {what} do not fit together") from exc

    @classmethod
    def of(cls, *functions: Callable[..., Any]) -> ResultCodec:
        """Return the codec of the first function that annotates its result, else of any JSON.

        Raises:
            DeclarationError: The annotation names what is not there, or a type that cannot travel.
        """
        for function in functions:
            annotation = annotation_of_result(function)
            if annotation is not inspect.Signature.empty:
                return _codec_of(annotation)
        return _codec_of(JsonValue)

    def encode(self, value: Any) -> bytes:
        """Encode a value as the JSON text that `decode` reads back.

        Raises:
            PayloadError: It does not fit the annotation, or JSON cannot carry it exactly.
        """
        try:
            return self._codec.encode({self._what: value})[len(self._prefix) : -1]
        except PayloadError as exc:
            raise _without_argument(exc) from exc

    def decode(self, body: bytes) -> Any:
        """Decode a value that fits the annotation.

        Raises:
            PayloadError: It is not JSON, or does not fit.
        """
        # Most results are one scalar, and a replay reads thousands.
        if self._as_read and type(value := _read(body)) in self._as_read:
            return value
        try:
            return self._codec.decode(b"%b%b}" % (self._prefix, body))[self._what]
        except PayloadError as exc:
            raise _without_argument(exc) from exc


def _codec_of(annotation: Any) -> ResultCodec:
    """Return the codec of an annotation: to make one takes as long as to use it a hundred times."""
    try:
        return _made(annotation, repr(annotation))
    except TypeError:  # an annotation without a hash
        return ResultCodec(annotation)


@lru_cache(maxsize=1_000)
def _made(annotation: Any, words: str) -> ResultCodec:
    """Make a codec; unions that differ in their order are equal, but not in words."""
    del words
    return ResultCodec(annotation)


def _read(body: bytes) -> object:
    """Return what a JSON text holds; `...`, which it cannot hold, where the codec is to say why."""
    try:
        value = from_json(body)
    except ValueError:
        return ...
    return ... if type(value) is float and not isfinite(value) else value


def _without_argument(error: PayloadError) -> PayloadError:
    """Return the error in words that do not call the value an argument."""
    return PayloadError(f"the {error.path} {error.problem}") if error.path else error


def _taking(annotation: Any, name: str) -> Callable[..., Any]:
    """Return a function that takes one value so annotated."""

    def taking() -> None: ...

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameter = inspect.Parameter(name, kind, annotation=annotation)
    vars(taking)["__signature__"] = inspect.Signature([parameter])
    return taking


def _plain(annotation: Any) -> Any:
    """Return the type that arrives: a plain function may be annotated to return a coroutine."""
    if typing.get_origin(annotation) in _WRAPPERS:
        annotation = typing.get_args(annotation)[-1]
    # A type variable stands for no one type: its values are taken as the JSON that they are.
    return JsonValue if annotation is Any or isinstance(annotation, TypeVar) else annotation
