"""Import of classes by a path of the form `package.module:Class`."""

from importlib import import_module
from typing import TypeVar

from tasks.core.types import UsageError

ClassT = TypeVar("ClassT")


def import_class(import_path: str, base_class: type[ClassT], description: str) -> type[ClassT]:
    """Import a class by its path.

    Raises UsageError if it cannot be imported or is not a subclass of `base_class`; `description` is its kind, for
    messages ("task", "method").
    """
    module, _, attribute = import_path.partition(":")
    try:
        imported = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UsageError(
            f"{description} {import_path!r} cannot be imported: {error}; write it as package.module:Class"
        ) from error
    if not (isinstance(imported, type) and issubclass(imported, base_class)):
        raise UsageError(
            f"{description} {import_path!r} is not a subclass of {base_class.__module__}.{base_class.__name__}"
        )
    return imported
