"""TODO."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.results.files import read_result_file
from benchmark.system.hashing import hash_text

DEFERRED_KEYS = ("parts", "training", "environment")  # what few ask of a result


INDEX_VERSION = 1  # of the index


class IndexedResult(dict):
    """A result as its file has it; what is long is read when it is asked for."""

    def __init__(self, indexed_fields: Mapping[str, Any], path: Path) -> None:
        super().__init__(indexed_fields)
        self.path = path

    def __missing__(self, key: str) -> Any:
        whole = read_result_file(self.path) or {}
        self.update({name: whole[name] for name in DEFERRED_KEYS if name in whole})
        if not super().__contains__(key):
            raise KeyError(key)
        return self[key]

    def __contains__(self, key: object) -> bool:
        """Deferred keys count as present where the file has them."""
        if not super().__contains__(key) and key in DEFERRED_KEYS:
            with suppress(KeyError):
                self.__missing__(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Like `dict.get`, and deferred keys are loaded."""
        return self[key] if key in self else default  # noqa: SIM401  (this is `get`)


def read_index(index_path: Path) -> dict[str, list]:
    """File name -> (its stamp, the result less what is long), of an earlier look; nothing where that is torn or old."""
    try:
        text, _, sealed = index_path.read_text(encoding="utf-8").rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    said = json.loads(text) if text and sealed == hash_text(text) else {}
    return said["results"] if isinstance(said, dict) and said.get("version") == INDEX_VERSION else {}
