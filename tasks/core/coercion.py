"""Plain values as a dataclass: a wrong name, type or choice is an error in one line that says what would be right."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DataclassT = TypeVar("DataclassT", bound="DataclassInstance")
TYPE_DESCRIPTIONS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
MAX_VALUE_CHARACTERS = 60  # characters of a value in a message


def coerce_to_dataclass(dataclass_type: type[DataclassT], values: Any, location: str, path: str = "") -> DataclassT:
    """The dataclass with these fields; those that are not given keep their defaults."""
    hints = _get_type_hints(dataclass_type)
    if not isinstance(values, Mapping):
        some = f"takes fields such as {next(iter(hints))}"
        raise UsageError(f"{location}: {path or 'it'} {some}, found {_format_short(values)}")
    found = {}
    for name, value in values.items():
        full = f"{path}.{name}" if path else str(name)
        if name not in hints:
            raise UsageError(f"{location}: no field {full!r}; {suggest_name(str(name), hints)}")
        found[name] = coerce_value(hints[name], value, location, full)
    for one in fields(dataclass_type):
        if one.name not in found and one.default is MISSING and one.default_factory is MISSING:
            full = f"{path}.{one.name}" if path else one.name
            raise UsageError(f"{location}: {full} is missing; it takes {describe_type(hints[one.name])}")
    return dataclass_type(**found)


def coerce_value(annotation: Any, value: Any, location: str, path: str) -> Any:
    """One value as its annotation has it; a number may come as text, as from a command line."""
    quotes = (
        "; put it in quotes" if annotation is str and isinstance(value, int | float) else ""
    )  # what YAML made of it
    wrong = UsageError(f"{location}: {path} takes {describe_type(annotation)}, found {_format_short(value)}{quotes}")
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and is_dataclass(annotation):
        return value if isinstance(value, annotation) else coerce_to_dataclass(annotation, value, location, path)
    if origin in (Union, UnionType):
        return _coerce_to_union(inner, value, location, path, wrong)
    if origin is Literal:
        if value not in inner:
            raise wrong
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        return tuple(coerce_value(inner[0], one, location, path) for one in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise wrong
        return {coerce_value(inner[0], key, location, f"{path}'s name"): coerce_value(inner[1], one, location, f"{path}.{key}")
                for key, one in value.items()}  # fmt: skip
    if annotation is Any:
        return value
    if annotation is int and isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    if not isinstance(value, annotation) or (annotation is not bool and isinstance(value, bool)):
        raise wrong
    return value


def _coerce_to_union(annotations: tuple, value: Any, location: str, path: str, type_error: UsageError) -> Any:
    """The first kind that takes the value; where only one is left besides null, its own message."""
    if value is None and NoneType in annotations:
        return None
    real = [kind for kind in annotations if kind is not NoneType]
    if len(real) == 1:
        return coerce_value(real[0], value, location, path)
    for kind in real:
        try:
            return coerce_value(kind, value, location, path)
        except UsageError:
            continue
    raise type_error


@cache
def _get_type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def describe_type(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join(describe_type(one) for one in inner)
    if origin is tuple:
        return f"a list, of which each is {describe_type(inner[0])}"
    if origin is dict:
        return "fields with names"
    return TYPE_DESCRIPTIONS.get(annotation, "fields with names")


def _format_short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}..."
