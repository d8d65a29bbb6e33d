"""YAML as plain values: no key twice, no file that unfolds to more than its reader could need."""

from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from tasks.example import UsageError

BYTES = 200_000  # of a file
VALUES = 20_000  # in it, what is referred to counted as often as it is (ten lines of aliases can stand for 10^9)
DEPTH = 50
DEEPER = {"[": 1, "{": 1, "]": -1, "}": -1}


def read(path: Path, what: str = "profile", such: str = "methods: [lora]") -> dict[str, Any]:
    """The fields of a file: `what` it is, and a field that would be `such`."""
    where = f"{what} {path}"
    try:
        if (size := path.stat().st_size) > BYTES:
            raise UsageError(f"{where}: {size:,} bytes; a {what} has at most {BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not YAML (byte {error.start} is not UTF-8)") from error
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror})") from error
    values = value(text, where)
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected fields such as `{such}`, found {type(values).__name__}")
    return values


def value(text: str, where: str) -> Any:
    """What a YAML text says."""
    import yaml

    if max(accumulate(DEEPER.get(char, 0) for char in text), default=0) > DEPTH:  # a parser takes seconds to find out
        raise UsageError(f"{where}: nested more than {DEPTH} deep")
    try:
        found = yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # RecursionError: "- - - -"; ValueError: 2024-99-99
        raise UsageError(f"{where}: not YAML ({' '.join(str(error).split())[:160]})") from error
    waiting, count = [found], 0
    while waiting:
        one, count = waiting.pop(), count + 1
        if count > VALUES:
            raise UsageError(f"{where}: more than {VALUES:,} values, aliases unfolded; write it without aliases")
        waiting += [*one, *one.values()] if isinstance(one, Mapping) else one if isinstance(one, list | set) else []
    return found


@cache
def _loader() -> type:
    """The safe loader, which knows no Python objects; a key that comes twice is an error in it."""
    import yaml

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} comes twice", node.start_mark)
            return super().construct_mapping(node, deep)

    return Strict
