"""The payload: a task's typed arguments to JSON and back, exactly, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import CoreSchema, to_json

from dispatchers._fidelity import compare
from dispatchers._payload_errors import DeclarationError, PayloadError
from dispatchers._payload_fingerprint import fingerprint, json_schema
from dispatchers._payload_problems import explain, why_unwritable
from dispatchers._payload_schema import Compiled, build_validator, compile_schema
from dispatchers._signature import Parameters

__all__ = ["DeclarationError", "PayloadCodec", "PayloadError", "build_validator", "explain"]

# Python's own limit for reading an integer: a shorter payload cannot contain a longer one.
_LONGEST_INTEGER = 4300
_ATOMS = frozenset({int, str, bool, type(None)})


class PayloadCodec:
    """Carries the arguments of one task through JSON, equal and of the same type, or refuses them.

    Cheap to build: pydantic's part is built on first use, by any thread.

    Args:
        function: The task's function.

    Raises:
        DeclarationError: A parameter could not be filled by name from JSON.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._parameters = Parameters(function)
        self.parameters = self._parameters.names
        self._name = function.__qualname__
        self._compiled: Compiled | None = None
        self._atoms: dict[str, frozenset[type]] | None = None
        self._fingerprint = ""

    @property
    def core_schema(self) -> CoreSchema:
        """The schema of the arguments as a dict, to embed in another; build with `build_validator`."""
        return self._compile().schema

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change when what the task accepts changes."""
        self._fingerprint = self._fingerprint or fingerprint(self.json_schema())
        return self._fingerprint

    def check(self) -> None:
        """Build everything now.

        Raises:
            DeclarationError: A parameter's type could not travel exactly.

        """
        self._compile()

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name; absent defaults stay absent: the worker's own apply.

        Raises:
            PayloadError: An argument is missing, unknown, given twice, or one too many.

        """
        return self._parameters.bind(args, kwargs)

    def encode(self, arguments: dict[str, Any]) -> bytes:
        """The arguments as a JSON object in UTF-8, from which `decode` gives back the same.

        Raises:
            PayloadError: They do not fit the task, or JSON cannot carry them exactly.

        """
        atoms = self._atoms
        if atoms is None:
            atoms = self._find_atoms()
        for name, value in arguments.items():
            if type(value) not in atoms.get(name, ()):
                return self._encode_exactly(arguments)
        self._parameters.check_names(arguments)
        try:
            payload = to_json(arguments)
        except ValueError as exc:
            raise why_unwritable(arguments, exc) from None
        return payload if len(payload) <= _LONGEST_INTEGER else self._encode_exactly(arguments)

    def decode(self, payload: bytes | str) -> dict[str, Any]:
        """The arguments from `encode`, or from any JSON object that fits the task.

        Raises:
            PayloadError: It is not JSON, or does not fit the task.

        """
        try:
            return self._compile().from_json(payload)
        except ValidationError as exc:
            raise explain(exc, payload) from None

    def decode_python(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The same from JSON that is already parsed.

        Raises:
            PayloadError: It does not fit the task.

        """
        try:
            text = to_json(payload, inf_nan_mode="constants")
        except ValueError as exc:
            raise why_unwritable(payload, exc) from None
        return self.decode(text)

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        return json_schema(self._compile().schema)

    def _encode_exactly(self, arguments: dict[str, Any]) -> bytes:
        self._parameters.check_names(arguments)
        compiled = self._compile()
        try:
            payload = compiled.to_json(arguments, warnings=False)
            decoded = compiled.from_json(payload)
        except (ValueError, RecursionError) as exc:
            raise why_unwritable(arguments, exc) from None
        for name, value in arguments.items():
            try:
                compare(value, decoded[name])
            except PayloadError as error:
                raise error.under(name) from None
        return payload

    def _compile(self) -> Compiled:
        """Threads that come first may each compile; either result serves."""
        if self._compiled is None:
            parameters = self._parameters
            self._compiled = compile_schema(
                self._name, parameters.annotations(), parameters.required
            )
        return self._compiled

    def _find_atoms(self) -> dict[str, frozenset[type]]:
        """The exact types of each parameter that takes nothing but these, whose values need no more."""
        annotations = self._parameters.annotations()
        found = {name: _members(annotation) for name, annotation in annotations.items()}
        self._atoms = {name: types for name, types in found.items() if types <= _ATOMS}
        return self._atoms


def _members(annotation: Any) -> frozenset[Any]:
    if get_origin(annotation) in {Union, UnionType}:
        return frozenset(get_args(annotation))
    return frozenset({annotation})
