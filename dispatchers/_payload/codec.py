"""The payload: a task's typed arguments to JSON and back, exactly, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import JsonValue, ValidationError
from pydantic_core import CoreSchema, from_json, to_json

from dispatchers._payload.declaration import check_defaults, check_schema
from dispatchers._payload.equality import compare_arguments
from dispatchers._payload.explain import explain, why_unwritable
from dispatchers._payload.fingerprint import fingerprint, json_schema
from dispatchers._payload.scalars import Atoms, atoms_of
from dispatchers._payload.schema import Compiled, compile_schema
from dispatchers._payload.signature import Parameters
from dispatchers._payload.size import check_size
from dispatchers._payload.unserializable import LONGEST_INTEGER, check_depth, refuse_constants

_NO_ATOMS: Atoms = {}


def _never(value: object) -> bool:
    del value
    return False


class PayloadCodec:
    """Codec that carries a task's arguments through JSON exactly, or refuses them.

    Cheap to build: pydantic's part is built on first use, by any thread.

    Args:
        function: The task's function.

    Raises:
        DeclarationError: A parameter could not be filled by name from JSON.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._parameters = Parameters(function)
        self.parameters = self._parameters.names
        # Compiled late: building a validator costs milliseconds, and most processes use few tasks.
        self._compiled: Compiled | None = None
        self._atoms: dict[str, Atoms] = {}
        self._fingerprint = ""

    @property
    def core_schema(self) -> CoreSchema:
        """Schema of the arguments, for `build_validator` to embed."""
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
        """Return a call's arguments by name; the worker's defaults apply.

        Raises:
            PayloadError: An argument is missing, unknown, given twice, or one too many.

        """
        return self._parameters.bind(args, kwargs)

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Bind arguments whose names `encode` will check."""
        return self._parameters.named(args, kwargs)

    def encode(self, arguments: dict[str, Any]) -> bytes:
        """Encode arguments as a JSON object that `decode` reads back.

        Raises:
            PayloadError: They do not fit the task, or JSON cannot carry them exactly.

        """
        atoms = self._atoms or self._find_atoms()
        try:
            for name, value in arguments.items():
                # Most arguments are scalars that JSON carries exactly: nothing has to be read back.
                is_certain = atoms.get(name, _NO_ATOMS).get(type(value), _never)
                if is_certain is not None and not is_certain(value):
                    return self._encode_exactly(arguments)
        except OverflowError:
            return self._encode_exactly(arguments)
        # All names are known at this point, so an equal number means that none is missing.
        if len(arguments) != len(self.parameters):
            self._parameters.check_names(arguments)
        try:
            payload = to_json(arguments)
        except ValueError as exc:
            raise why_unwritable(arguments, exc) from None
        # A longer one may contain an integer that would not be read again.
        return payload if len(payload) <= LONGEST_INTEGER else self._encode_exactly(arguments)

    def decode(self, payload: bytes | bytearray | str) -> dict[str, Any]:
        """Decode arguments from a JSON object that fits the task.

        Raises:
            PayloadError: It is not JSON, or does not fit the task.
            Exception: Whatever else a validator of the task's types raises; in `encode`, too.

        """
        try:
            arguments = self._compile().from_json(payload)
        except ValidationError as exc:
            raise explain(exc, payload) from None
        refuse_constants(payload)
        return arguments

    def decode_python(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Decode arguments from JSON that is already parsed.

        Raises:
            PayloadError: It does not fit the task.

        """
        try:
            text = to_json(dict(payload), inf_nan_mode="constants")
        except ValueError as exc:
            raise why_unwritable(payload, exc) from None
        return self.decode(text)

    def to_json_values(self, arguments: dict[str, Any]) -> dict[str, JsonValue]:
        """Return what `encode` writes, as plain JSON values.

        Raises:
            PayloadError: They do not fit the task, or JSON cannot carry them exactly.

        """
        return cast("dict[str, JsonValue]", from_json(self.encode(arguments)))

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments."""
        return json_schema(self._compile().schema)

    def _encode_exactly(self, arguments: dict[str, Any]) -> bytes:
        self._parameters.check_names(arguments)
        compiled = self._compile()
        check_size(arguments)
        try:
            # Warnings are off because what was written is read back and compared, which sees more.
            payload = compiled.to_json(arguments, warnings=False, round_trip=True)
            decoded = compiled.from_json(payload)
            compare_arguments(arguments, decoded)
            check_depth(payload)
        # Not the arguments' fault: the process lacks memory, which is another category.
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - C1: arguments and their types run foreign code
            raise why_unwritable(arguments, exc) from None
        return payload

    def _compile(self) -> Compiled:
        """Threads that come first may each compile; either result serves."""
        if self._compiled is None:
            known = self._parameters
            compiled = compile_schema(known.owner, known.annotations(), known.required)
            check_schema(cast("dict[str, Any]", compiled.schema))
            # At the declaration, so that a wrong default fails there and not in some later call.
            check_defaults(known.defaults, compiled.schema)
            self._compiled = compiled
        return self._compiled

    def _find_atoms(self) -> dict[str, Atoms]:
        annotations = self._parameters.annotations()
        self._atoms = {name: atoms_of(annotation) for name, annotation in annotations.items()}
        return self._atoms
