"""Index of a results folder: the short fields of all results in one file, so that a folder loads quickly."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.results.files import FolderNotWritableError, read_result_file, write_file_atomically
from benchmark.results.schema import DETAIL_FIELDS
from benchmark.system.hashing import hash_text

INDEX_VERSION = 2


class IndexEntry(NamedTuple):
    """Entry of the index: [modification time in ns, size in bytes] of a result file, and its JSON without details."""

    stamp: list[int]
    values: dict[str, Any]


def load_indexed_values(folder: Path, index_path: Path) -> dict[Path, dict[str, Any]]:
    """Return path -> JSON without details of every readable result of `folder`, and update the index.

    Only files that have changed since the index was written are read.
    """
    if not folder.is_dir():
        return {}
    old_entries = read_index(index_path)
    entries: dict[str, IndexEntry] = {}
    with os.scandir(folder) as files:
        for file in files:
            if not file.name.endswith(".json"):
                continue
            try:
                file_status = file.stat()
            except FileNotFoundError:  # removed by another process in the meantime
                continue
            stamp = [file_status.st_mtime_ns, file_status.st_size]
            old = old_entries.get(file.name)
            if old and old.stamp == stamp:
                entries[file.name] = old
            elif values := read_result_file(folder / file.name):
                short = {key: value for key, value in values.items() if key not in DETAIL_FIELDS}
                entries[file.name] = IndexEntry(stamp, short)
    if entries != old_entries:
        with suppress(FolderNotWritableError):  # without an index, loading a read-only folder only takes longer
            text = json.dumps({"version": INDEX_VERSION, "results": entries}, ensure_ascii=False)
            write_file_atomically(index_path, f"{text}\n{hash_text(text)}".encode())
    return {folder / name: entry.values for name, entry in entries.items()}


def read_index(index_path: Path) -> dict[str, IndexEntry]:
    """Return file name -> entry; empty if the index is missing, damaged or of another version."""
    try:
        text, _, checksum = index_path.read_text(encoding="utf-8").rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    if not text or checksum != hash_text(text):
        return {}
    index = json.loads(text)
    if not isinstance(index, dict) or index.get("version") != INDEX_VERSION:
        return {}
    return {name: IndexEntry(*entry) for name, entry in index["results"].items()}
