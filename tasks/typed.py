"""Plain values as a dataclass: a wrong name, type or choice is an error in one line that says what would be right."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tasks.example import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")
SPOKEN = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
LONG = 60  # characters of a value in a message


def typed(kind: type[Kind], values: Any, where: str, path: str = "") -> Kind:
    """The dataclass with these fields; those that are not given keep their defaults."""
    hints = _hints(kind)
    if not isinstance(values, Mapping):
        some = f"takes fields such as {next(iter(hints))}"
        raise UsageError(f"{where}: {path or 'it'} {some}, found {_short(values)}")
    found = {}
    for name, value in values.items():
        full = f"{path}.{name}" if path else str(name)
        if name not in hints:
            raise UsageError(f"{where}: no field {full!r}; {near(str(name), hints)}")
        found[name] = as_kind(hints[name], value, where, full)
    for one in fields(kind):
        if one.name not in found and one.default is MISSING and one.default_factory is MISSING:
            full = f"{path}.{one.name}" if path else one.name
            raise UsageError(f"{where}: {full} is missing; it takes {spoken(hints[one.name])}")
    return kind(**found)


def as_kind(kind: Any, value: Any, where: str, path: str) -> Any:
    """One value as its annotation has it; a number may come as text, as from a command line."""
    quotes = "; put it in quotes" if kind is str and isinstance(value, int | float) else ""  # what YAML made of it
    wrong = UsageError(f"{where}: {path} takes {spoken(kind)}, found {_short(value)}{quotes}")
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return value if isinstance(value, kind) else typed(kind, value, where, path)
    if origin in (Union, UnionType):
        return _one_of(inner, value, where, path, wrong)
    if origin is Literal:
        if value not in inner:
            raise wrong
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        return tuple(as_kind(inner[0], one, where, path) for one in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise wrong
        return {as_kind(inner[0], key, where, f"{path}'s name"): as_kind(inner[1], one, where, f"{path}.{key}")
                for key, one in value.items()}  # fmt: skip
    if kind is Any:
        return value
    if kind is int and isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise wrong
    return value


def _one_of(kinds: tuple, value: Any, where: str, path: str, wrong: UsageError) -> Any:
    """The first kind that takes the value; where only one is left besides null, its own message."""
    if value is None and NoneType in kinds:
        return None
    real = [kind for kind in kinds if kind is not NoneType]
    if len(real) == 1:
        return as_kind(real[0], value, where, path)
    for kind in real:
        try:
            return as_kind(kind, value, where, path)
        except UsageError:
            continue
    raise wrong


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def spoken(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join(spoken(one) for one in inner)
    if origin is tuple:
        return f"a list, of which each is {spoken(inner[0])}"
    if origin is dict:
        return "fields with names"
    return SPOKEN.get(kind, "fields with names")


def near(name: str, known: Iterable[str]) -> str:
    """What may have been meant."""
    known = list(known)
    found = get_close_matches(name, known, 1)
    return f"did you mean {found[0]!r}?" if found else f"there are: {', '.join(known)}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= LONG else f"{text[:LONG]}..."
