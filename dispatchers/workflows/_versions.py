"""Versions of a workflow's code: an execution stays on the one that it began with, or anew."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cached_property
from typing import Any

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.result import ResultCodec
from dispatchers._payload.signature import UnresolvedError
from dispatchers._tasks.envelope_reader import check_readable, envelope_reader

Code = Callable[..., Coroutine[Any, Any, Any]]
"""The async function of a workflow."""


class Version:
    """The code of a workflow under one number, with the arguments and the result that it has.

    Args:
        number: 1, 2, 3 ...

        function: The code.

    Raises:
        DeclarationError: Its arguments or its result could not travel.
    """

    def __init__(self, number: int, function: Code) -> None:
        self.number = number
        self.function = function
        self.codec = PayloadCodec(function)
        check_readable(self.codec)
        # Now, not at the first replay: what has no result must not begin.
        with suppress(UnresolvedError):
            _ = self.results

    @cached_property
    def results(self) -> ResultCodec:
        """Codec of the result.

        Raises:
            DeclarationError: A result of the annotated type could not travel exactly.
        """
        return ResultCodec.of(self.function)

    @cached_property
    def _reader(self) -> Callable[[bytes], dict[str, Any]]:
        return envelope_reader(self.codec)

    def code(self, envelope: bytes) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Return what makes the coroutine, with the arguments in the envelope of a start.

        Raises:
            PayloadError: They do not fit this code.
        """
        arguments = self._reader(envelope)["payload"]
        return lambda: self.function(**arguments)

    def payload(self, *args: Any, **kwargs: Any) -> bytes:
        """Encode arguments, as those of a `restart`.

        Raises:
            PayloadError: They do not fit.
        """
        return self.codec.encode(self.codec.named(args, kwargs))


class Versions(dict[int, Version]):
    """The code of a workflow by number.

    Args:
        latest: The number on which executions begin, also where they begin anew.
    """

    def __init__(self, latest: int) -> None:
        super().__init__()
        self.latest = latest

    def restarted(self, *args: Any, **kwargs: Any) -> bytes:
        """Encode the arguments of a `restart`, which are those of the latest code.

        Raises:
            PayloadError: They do not fit.
        """
        return self[self.latest].payload(*args, **kwargs)
