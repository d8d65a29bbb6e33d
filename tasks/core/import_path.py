"""A class from anywhere on the path, by the name `package.module:Class`."""

from importlib import import_module
from typing import TypeVar

from tasks.core.types import UsageError

ClassT = TypeVar("ClassT")


def import_class(import_path: str, base_class: type[ClassT], description: str) -> type[ClassT]:
    """The class of this name; `what` it is to be, a subclass of `base`, for whoever named another."""
    module, _, attribute = import_path.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UsageError(
            f"{description} {import_path!r} cannot be imported: {error}; write it as package.module:Class"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base_class)):
        raise UsageError(
            f"{description} {import_path!r} is no subclass of {base_class.__module__}.{base_class.__name__}"
        )
    return found
