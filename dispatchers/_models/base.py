"""The base of every value that crosses a boundary: frozen, strict, quiet about its content."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

_names: dict[type[BaseModel], set[str]] = {}
"""The fields of each model: a table, as pydantic's classes take three times as long to be asked."""


class Model(BaseModel):  # noqa: PLW1641 - pydantic gives frozen models a hash
    """Frozen and strict; unknown fields are refused, errors do not quote the input."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        ser_json_timedelta="iso8601",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        # Validators are built on first use: most processes never need most of the models.
        defer_build=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Note the fields once: instances that `build` makes share the set."""
        super().__pydantic_init_subclass__(**kwargs)
        # Here and not in `build`, which each dispatch calls several times.
        _names[cls] = set(cls.model_fields)

    def __eq__(self, other: object) -> bool:
        """Equal fields of the same class; what was noted beside them does not count."""
        # Not pydantic's own, which compares private values as well.
        return type(self) is type(other) and self.__dict__ == other.__dict__


M = TypeVar("M", bound=Model)


# The four places in which pydantic keeps an instance's state, written past `frozen`.
_new = object.__new__


_write_values = vars(BaseModel)["__dict__"].__set__


_write_fields_set = vars(BaseModel)["__pydantic_fields_set__"].__set__


_write_extra = vars(BaseModel)["__pydantic_extra__"].__set__


_write_private = vars(BaseModel)["__pydantic_private__"].__set__


def build(cls: type[M], values: dict[str, Any], private: dict[str, Any] | None = None) -> M:
    """Make an instance from values known to be valid; keep them.

    `model_construct` does the same many times slower: it looks at every field again.
    """
    self = _new(cls)
    _write_values(self, values)
    _write_fields_set(self, _names[cls])
    _write_extra(self, None)
    _write_private(self, private)
    return self
