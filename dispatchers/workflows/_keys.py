"""The id of an execution: its workflow's name, a slash, and the key of its start."""

from __future__ import annotations

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dispatchers._models.fields import Key
from dispatchers._payload.errors import PayloadError, type_name

_key: TypeAdapter[str] = TypeAdapter(Key, config=ConfigDict(defer_build=True))


def execution_id(workflow: str, key: object) -> str:
    """Return the id of an execution.

    Raises:
        PayloadError: No start can have that key: what is told to it would wait for ever.
    """
    try:
        return f"{workflow}/{_key.validate_python(key, strict=True)}"
    except ValidationError:
        given = f"a str of {len(key)}" if isinstance(key, str) else type_name(key)
        raise PayloadError(
            f"the key of an execution of {workflow!r} is UTF-8 text of 1 to 512 characters, "
            f"not {given}"
        ) from None
