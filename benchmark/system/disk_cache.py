"""Cache on disk for values that are slow to compute, in the user's cache folder."""

import json
from collections.abc import Callable
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmark.system.hashing import hash_json
from tasks.core.sources import get_cache_folder


@cache
def hash_source_file(file: str) -> str:
    """Return the sha256 of a source file; an edit invalidates the values that its functions computed."""
    return sha256(Path(file).read_bytes()).hexdigest()


def load_or_compute(key: object, compute: Callable[[], Any]) -> Any:
    """Return the value cached on disk for `key`, else compute and store it. The value must be JSON-serialisable.

    The key includes the source file of `compute`, so a changed function never returns what an older version computed.
    """
    source = hash_source_file(getattr(compute, "func", compute).__code__.co_filename)  # `func`: a partial
    path = get_cache_folder() / "facts" / f"{hash_json([source, key])[:32]}.json"
    try:
        value, checksum = json.loads(path.read_text(encoding="utf-8"))
        if checksum == hash_json(value):
            return value
    except (OSError, ValueError, TypeError):  # missing, or incomplete after a crash: compute it (again)
        pass
    value = json.loads(json.dumps(compute(), default=str))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch_path = path.with_suffix(f".{uuid4().hex}")  # no process id: containers that share a home reuse them
        scratch_path.write_text(json.dumps([value, hash_json(value)], ensure_ascii=False), encoding="utf-8")
        scratch_path.replace(path)
    except OSError:  # without a cache, as in a read-only home, the value is computed each time
        return value
    return value


def hash_file_cached(path: Path) -> str:
    """Return the sha256 of a file, cached until its size or modification time changes."""
    path = path.resolve()
    file_status = path.stat()

    def compute_hash() -> str:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    return load_or_compute(["file", str(path), file_status.st_size, file_status.st_mtime_ns], compute_hash)
