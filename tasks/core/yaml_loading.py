"""Load YAML as plain values. Duplicate keys are errors, and size and nesting are limited (YAML bombs)."""

from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from tasks.core.types import UsageError

MAX_FILE_BYTES = 200_000
MAX_VALUES = 20_000  # values after expansion of aliases (ten lines of aliases can expand to 10^9 values)
MAX_NESTING_DEPTH = 50
NESTING_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def load_yaml_fields(path: Path, file_kind: str = "profile", example_field: str = "methods: [lora]") -> dict[str, Any]:
    """Return the fields of a YAML file.

    `file_kind` and `example_field` are used in messages. Raises UsageError if the file is not a YAML mapping.
    """
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
    """Return the value of a YAML text. Raises UsageError with `location` if it is invalid or exceeds a limit."""
    import yaml

    # Checked before parsing, because the parser needs seconds for deep nesting.
    if max(accumulate(NESTING_STEPS.get(char, 0) for char in text), default=0) > MAX_NESTING_DEPTH:
        raise UsageError(f"{location}: nested more than {MAX_NESTING_DEPTH} levels deep")
    try:
        result = yaml.load(text, Loader=_get_strict_loader())
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # RecursionError: "- - - -"; ValueError: 2024-99-99
        raise UsageError(f"{location}: not YAML ({' '.join(str(error).split())[:160]})") from error
    pending = [result]
    count = 0
    while pending:
        value = pending.pop()
        count += 1
        if count > MAX_VALUES:
            raise UsageError(
                f"{location}: more than {MAX_VALUES:,} values with aliases expanded; write it without aliases"
            )
        if isinstance(value, Mapping):
            pending += [*value, *value.values()]
        elif isinstance(value, list | set):
            pending += value
    return result


@cache
def _get_strict_loader() -> type:
    """Return a safe loader (no Python objects) that raises an error on duplicate keys."""
    import yaml

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            """Construct a mapping. Raises ConstructorError on a duplicate key."""
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if duplicates := [key for key in keys if keys.count(key) > 1]:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {duplicates[0]!r}", node.start_mark)
            return super().construct_mapping(node, deep)

    return Strict
