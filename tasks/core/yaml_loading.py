"""YAML as plain values: no key twice, no file that unfolds to more than its reader could need."""

from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from tasks.core.types import UsageError

MAX_FILE_BYTES = 200_000  # of a file
MAX_VALUES = 20_000  # in it, what is referred to counted as often as it is (ten lines of aliases can stand for 10^9)
MAX_NESTING_DEPTH = 50
NESTING_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def load_yaml_fields(path: Path, file_kind: str = "profile", example_field: str = "methods: [lora]") -> dict[str, Any]:
    """The fields of a file: `what` it is, and a field that would be `such`."""
    where = f"{file_kind} {path}"
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UsageError(f"{where}: {size:,} bytes; a {file_kind} has at most {MAX_FILE_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not YAML (byte {error.start} is not UTF-8)") from error
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror})") from error
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected fields such as `{example_field}`, found {type(values).__name__}")
    return values


def parse_yaml(text: str, location: str) -> Any:
    """What a YAML text says."""
    import yaml

    if (
        max(accumulate(NESTING_STEPS.get(char, 0) for char in text), default=0) > MAX_NESTING_DEPTH
    ):  # a parser takes seconds to find out
        raise UsageError(f"{location}: nested more than {MAX_NESTING_DEPTH} deep")
    try:
        found = yaml.load(text, Loader=_get_strict_loader())
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # RecursionError: "- - - -"; ValueError: 2024-99-99
        raise UsageError(f"{location}: not YAML ({' '.join(str(error).split())[:160]})") from error
    waiting, count = [found], 0
    while waiting:
        one, count = waiting.pop(), count + 1
        if count > MAX_VALUES:
            raise UsageError(f"{location}: more than {MAX_VALUES:,} values, aliases unfolded; write it without aliases")
        waiting += [*one, *one.values()] if isinstance(one, Mapping) else one if isinstance(one, list | set) else []
    return found


@cache
def _get_strict_loader() -> type:
    """The safe loader, which knows no Python objects; a key that comes twice is an error in it."""
    import yaml

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} comes twice", node.start_mark)
            return super().construct_mapping(node, deep)

    return Strict
