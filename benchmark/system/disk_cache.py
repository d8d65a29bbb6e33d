"""A cache on disk for facts that are slow to compute, under the user's cache folder."""

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
    """sha256 of a source file: an edit there makes what its functions computed earlier worthless."""
    return sha256(Path(file).read_bytes()).hexdigest()


def load_or_compute(key: object, compute: Callable[[], Any]) -> Any:
    """Return the value cached on disk for `key`, else compute and store it.

    The key includes the source file of `compute`, so a changed function never returns what an older version computed.
    """
    source = hash_source_file(getattr(compute, "func", compute).__code__.co_filename)  # `func`: of a partial
    path = get_cache_folder() / "facts" / f"{hash_json([source, key])[:32]}.json"
    try:
        made, seal = json.loads(path.read_text(encoding="utf-8"))
        if seal == hash_json(made):
            return made
    except (OSError, ValueError, TypeError):  # not there, or torn by a crash: make it (again)
        pass
    made = json.loads(json.dumps(compute(), default=str))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{uuid4().hex}")  # containers that share a home have the same process ids
        scratch.write_text(json.dumps([made, hash_json(made)], ensure_ascii=False), encoding="utf-8")
        scratch.replace(path)
    except OSError:
        return made  # a read-only home costs time, not results
    return made


def hash_file_cached(path: Path) -> str:
    """sha256 of a file, computed once for as long as its size and time stay."""
    path = path.resolve()
    fact = path.stat()

    def ask() -> str:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    return load_or_compute(["file", str(path), fact.st_size, fact.st_mtime_ns], ask)
