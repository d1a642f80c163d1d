"""Names that are recorded: ids of executions, which are workflow, slash and key, and others."""

from __future__ import annotations

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dispatchers._models.fields import Key
from dispatchers._payload.errors import DeclarationError, PayloadError, type_name

_key: TypeAdapter[str] = TypeAdapter(Key, config=ConfigDict(defer_build=True))


def execution_id(workflow: str, key: object) -> str:
    """Return the id of an execution.

    Raises:
        PayloadError: No start can have that key: what is told to it would wait for ever.
    """
    if (wrong := _wrong(key)) is not None:
        raise PayloadError(f"the key of an execution of {workflow!r} is {wrong}")
    return f"{workflow}/{key}"


def checked_name(what: str, name: object) -> None:
    """Check a name that is recorded.

    Args:
        what: The call that has it, for the message.

        name: The name.

    Raises:
        DeclarationError: It would not be the same when it is read back.
    """
    if (wrong := _wrong(name)) is not None:
        raise DeclarationError(f"the name of {what} is {wrong}")


def _wrong(name: object) -> str | None:
    try:
        _key.validate_python(name, strict=True)
    except ValidationError:
        given = f"a str of {len(name)}" if isinstance(name, str) else type_name(name)
        return f"UTF-8 text of 1 to 512 characters, not {given}"
    return None
