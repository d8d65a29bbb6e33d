"""Suggestions for misspelled names in messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest_name(name: str, valid_names: Iterable[str]) -> str:
    """Return a hint for an unknown name: the most similar valid name, or the list of all valid names."""
    valid_names = list(valid_names)
    matches = get_close_matches(name, valid_names, 1)
    return f"did you mean {matches[0]!r}?" if matches else f"there are: {', '.join(valid_names)}"
