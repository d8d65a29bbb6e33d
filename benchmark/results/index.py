"""Index of a results folder: the short fields of all results in one file, so that a folder loads quickly."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.results.files import read_result_file
from benchmark.system.hashing import hash_text

DEFERRED_KEYS = ("parts", "training", "environment")  # long fields, rarely needed: not in the index

INDEX_VERSION = 1


class IndexedResult(dict):
    """A result whose deferred fields are read from its file on first access; the others come from the index."""

    def __init__(self, indexed_fields: Mapping[str, Any], path: Path) -> None:
        """Create a result from the fields in the index and the path of its complete file."""
        super().__init__(indexed_fields)
        self.path = path

    def __missing__(self, key: str) -> Any:
        """Load the deferred fields; raises KeyError if the key is not one of them or the file lacks it."""
        all_fields = read_result_file(self.path) or {}
        self.update({name: all_fields[name] for name in DEFERRED_KEYS if name in all_fields})
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
    """Return file name -> [stamp, result without deferred fields]; empty if the index is missing, damaged or old.

    A stamp is [modification time in ns, size in bytes] of the result file.
    """
    try:
        text, _, checksum = index_path.read_text(encoding="utf-8").rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    if not text or checksum != hash_text(text):
        return {}
    index = json.loads(text)
    return index["results"] if isinstance(index, dict) and index.get("version") == INDEX_VERSION else {}
