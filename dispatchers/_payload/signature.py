"""A task's parameters: names, annotations and defaults, and how the arguments of a call bind."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from dispatchers._errors import nearest
from dispatchers._payload.errors import DeclarationError, PayloadError, type_name

_Kind = inspect.Parameter


class UnresolvedError(DeclarationError):
    """An annotation names what is not there: not yet, perhaps, while its module is loading."""


class Parameters:
    """The parameters of one function, checked as far as is possible without evaluating them.

    Args:
        function: The task's function; what `functools.wraps` wrapped is looked through.

    Raises:
        DeclarationError: A parameter could not be filled by name from JSON.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.owner = getattr(function, "__name__", type(function).__name__)
        self._globals = _globals_of(function)
        parameters = _readable_signature(function).parameters
        for parameter in parameters.values():
            _check(parameter)
        self.names = tuple(parameters)
        self._positional = tuple(
            name for name, p in parameters.items() if p.kind is _Kind.POSITIONAL_OR_KEYWORD
        )
        self.defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
        self.required = frozenset(self.names) - self.defaults.keys()
        # Not evaluated yet: a task may be declared above the classes that its annotations name.
        self._annotations = {name: p.annotation for name, p in parameters.items()}
        self._known = frozenset(self.names)

    def annotations(self) -> dict[str, Any]:
        """Return the annotations, evaluated.

        Raises:
            DeclarationError: One refers to a name that its module does not have at run time, or to
            a type variable.

        """
        found = {name: self._evaluate(name) for name in self.names}
        for name, annotation in found.items():
            if variable := _type_variable(annotation):
                raise DeclarationError(
                    f"parameter {name!r} is annotated with the type variable {variable}, "
                    "which stands for no one type: write the type itself"
                )
        return found

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the call's arguments by name, without absent defaults.

        Raises:
            PayloadError: An argument is missing, unknown, given twice, or one too many.

        """
        if args:
            kwargs = self.named(args, kwargs)
        self.check_names(kwargs)
        return kwargs

    def check_names(self, arguments: dict[str, Any]) -> None:
        """Accept arguments that are all known, with none missing.

        Raises:
            PayloadError: One is unknown or missing.

        """
        given = arguments.keys()
        if not (self.required <= given <= self._known):
            raise self._misnamed(arguments)

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, without a check of the names.

        Raises:
            PayloadError: One is given twice, or there are too many.

        """
        if len(args) > len(self._positional):
            raise PayloadError(
                f"{len(args)} arguments are given by position, where the task takes at most "
                f"{len(self._positional)}: pass the others by name"
            )
        bound = dict(zip(self._positional, args))  # noqa: B905 - the keyword doubles the cost
        if not kwargs:
            return bound
        for name in bound.keys() & kwargs.keys():
            raise PayloadError("is given twice, by position and by name: drop one", name)
        return {**bound, **kwargs}

    def _misnamed(self, arguments: dict[str, Any]) -> PayloadError:
        for name in arguments:
            if name not in self._known:
                return _unknown(name, self.names)
        missing = next(name for name in self.names if name in self.required - arguments.keys())
        return PayloadError("is missing, and has no default: pass it", missing)

    def _evaluate(self, name: str) -> Any:
        what = f"parameter {name!r} of {self.owner}"
        return _evaluated(self._annotations[name], self._globals, what)


def annotation_of_result(function: Callable[..., Any]) -> Any:
    """Return the evaluated annotation of a function's result; `Signature.empty` without one.

    Raises:
        DeclarationError: It refers to a name that its module does not have at run time.
    """
    annotation = _readable_signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        return annotation
    owner = getattr(function, "__name__", type(function).__name__)
    return _evaluated(annotation, _globals_of(function), f"the result of {owner}")


def _evaluated(annotation: Any, namespace: dict[str, Any], what: str) -> Any:
    """`get_type_hints` of one annotation alone: the others may not resolve."""

    def carrier() -> None: ...

    # A function of its own, as `get_type_hints` evaluates all annotations of what it is given.
    carrier.__annotations__ = {"one": annotation}
    try:
        hints = typing.get_type_hints(carrier, namespace, include_extras=True)
        return _unfrozen(hints["one"])
    except (AttributeError, SyntaxError, TypeError) as exc:
        raise DeclarationError(
            f"{what} has an annotation that is no type ({type(exc).__name__}): correct it"
        ) from exc
    except NameError as exc:
        raise UnresolvedError(
            f"{what} is annotated with {exc.name!r}, which its module does not have at run time: "
            "define or import it there, outside `if TYPE_CHECKING`"
        ) from exc


def _unfrozen(annotation: Any) -> Any:
    """Return an annotation with the clock's own types where freezegun has put its fakes."""
    # Real types again: pydantic has no schema for the fakes, and a test need not run frozen.
    if getattr(annotation, "__module__", "") == "freezegun.api":
        bases = getattr(annotation, "__mro__", ())
        return next((base for base in bases if base.__module__ == "datetime"), annotation)
    args = typing.get_args(annotation)
    real = tuple(map(_unfrozen, args))
    if real == args or isinstance(annotation, list):
        return annotation
    if isinstance(annotation, types.UnionType):
        return functools.reduce(operator.or_, real)
    if typing.get_origin(annotation) is Annotated:
        return Annotated[real]
    if hasattr(annotation, "copy_with"):
        return annotation.copy_with(real)
    return annotation.__origin__[real]


def _unknown(name: object, names: tuple[str, ...]) -> PayloadError:
    if type(name) is not str:
        return PayloadError(
            f"an argument has {type_name(name)} for its name: pass arguments by name"
        )
    return PayloadError(f"is not one of the task's{nearest(name, names)}", name)


def _type_variable(annotation: Any) -> str:
    """Return the first type variable in an annotation, however deep."""
    if isinstance(annotation, TypeVar):
        return annotation.__name__
    inner = map(_type_variable, typing.get_args(annotation))
    return next(filter(None, inner), "")


def _globals_of(function: Any) -> dict[str, Any]:
    """Return the namespace that a function's annotations were written in."""
    # A decorator's wrapper lives in another module, where the annotations' names are unknown.
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    return getattr(inner, "__globals__", {})


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        import annotationlib

        # Python 3.14 evaluates annotations on access: names that do not exist yet would raise here.
        lazily = annotationlib.Format.FORWARDREF
        return inspect.signature(function, annotation_format=lazily)
    return inspect.signature(function)


def _readable_signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return _signature(function)
    except (TypeError, ValueError) as exc:
        raise DeclarationError(
            f"{type_name(function)} has no signature that can be read: declare a function "
            "that is written in Python"
        ) from exc


def _check(parameter: inspect.Parameter) -> None:
    if parameter.name in {"self", "cls"}:
        raise DeclarationError(
            f"parameter {parameter.name!r} makes this a method: declare a function of the module"
        )
    if problem := _PROBLEMS.get(parameter.kind, ""):
        raise DeclarationError(f"parameter {str(parameter)!r} {problem}")
    if parameter.annotation is parameter.empty:
        raise DeclarationError(
            f"parameter {parameter.name!r} has no annotation, so its values could not be checked: "
            f"write `{parameter.name}: int`, or `{parameter.name}: JsonValue` for any JSON"
        )


_PROBLEMS: dict[Any, str] = {
    _Kind.VAR_POSITIONAL: "takes any number of arguments: declare one parameter that is a list",
    _Kind.VAR_KEYWORD: "takes arguments of any name: declare one parameter that is a dict",
    _Kind.POSITIONAL_ONLY: "has no name for callers: remove the `/` from the signature",
}
