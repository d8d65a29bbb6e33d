"""A class from anywhere on the path, by the name `package.module:Class`."""

from importlib import import_module
from typing import TypeVar

from tasks.example import UsageError

Kind = TypeVar("Kind")


def class_of(name: str, base: type[Kind], what: str) -> type[Kind]:
    """The class of this name; `what` it is to be, a subclass of `base`, for whoever named another."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UsageError(f"{what} {name!r} cannot be imported: {error}; write it as package.module:Class") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(f"{what} {name!r} is no subclass of {base.__module__}.{base.__name__}")
    return found
