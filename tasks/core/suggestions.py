"""TODO."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest_name(name: str, valid_names: Iterable[str]) -> str:
    """What may have been meant."""
    valid_names = list(valid_names)
    found = get_close_matches(name, valid_names, 1)
    return f"did you mean {found[0]!r}?" if found else f"there are: {', '.join(valid_names)}"
