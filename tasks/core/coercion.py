"""Conversion of plain values (from YAML) to dataclasses, with one-line errors for wrong names, types and choices."""

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
MAX_VALUE_CHARACTERS = 60  # maximum length of a value in a message


def coerce_to_dataclass(dataclass_type: type[DataclassT], values: Any, location: str, path: str = "") -> DataclassT:
    """Convert a mapping to a dataclass; missing fields get their defaults.

    `location` (file) and `path` (dotted field name) are used in messages. Raises UsageError for an unknown or missing
    field, and for a value of a wrong type.
    """
    hints = _get_type_hints(dataclass_type)
    if not isinstance(values, Mapping):
        raise UsageError(
            f"{location}: {path or 'it'} takes fields such as {next(iter(hints))}, found {_format_short(values)}"
        )
    arguments = {}
    for name, value in values.items():
        full_name = f"{path}.{name}" if path else str(name)
        if name not in hints:
            raise UsageError(f"{location}: no field {full_name!r}; {suggest_name(str(name), hints)}")
        arguments[name] = coerce_value(hints[name], value, location, full_name)
    for field in fields(dataclass_type):
        if field.name not in arguments and field.default is MISSING and field.default_factory is MISSING:
            full_name = f"{path}.{field.name}" if path else field.name
            raise UsageError(f"{location}: {full_name} is missing; it takes {describe_type(hints[field.name])}")
    return dataclass_type(**arguments)


def coerce_value(annotation: Any, value: Any, location: str, path: str) -> Any:
    """Convert a value to the type of its annotation; whole numbers may be texts (from the command line)."""
    # YAML reads an unquoted text of digits as a number.
    hint = "; put it in quotes" if annotation is str and isinstance(value, int | float) else ""
    type_error = UsageError(f"{location}: {path} takes {describe_type(annotation)}, found {_format_short(value)}{hint}")
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if isinstance(annotation, type) and is_dataclass(annotation):
        return value if isinstance(value, annotation) else coerce_to_dataclass(annotation, value, location, path)
    if origin in (Union, UnionType):
        return _coerce_to_union(arguments, value, location, path, type_error)
    if origin is Literal:
        if value not in arguments:
            raise type_error
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise type_error
        return tuple(coerce_value(arguments[0], item, location, path) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise type_error
        key_type, value_type = arguments
        return {
            coerce_value(key_type, key, location, f"{path}'s name"): coerce_value(
                value_type, item, location, f"{path}.{key}"
            )
            for key, item in value.items()
        }
    if annotation is Any:
        return value
    if annotation is int and isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    if not isinstance(value, annotation) or (annotation is not bool and isinstance(value, bool)):
        raise type_error
    return value


def _coerce_to_union(annotations: tuple, value: Any, location: str, path: str, type_error: UsageError) -> Any:
    """Convert to the first type that accepts the value; if there is one type besides None, raise that type's error."""
    if value is None and NoneType in annotations:
        return None
    candidates = [annotation for annotation in annotations if annotation is not NoneType]
    if len(candidates) == 1:
        return coerce_value(candidates[0], value, location, path)
    for annotation in candidates:
        try:
            return coerce_value(annotation, value, location, path)
        except UsageError:
            continue
    raise type_error


@cache
def _get_type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def describe_type(annotation: Any) -> str:
    """Describe a type in words, for messages."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(describe_type(argument) for argument in arguments)
    if origin is tuple:
        return f"a list, of which each is {describe_type(arguments[0])}"
    if origin is dict:
        return "fields with names"
    return TYPE_DESCRIPTIONS.get(annotation, "fields with names")


def _format_short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}..."
