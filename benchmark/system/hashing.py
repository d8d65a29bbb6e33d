"""Hash functions for identities, checksums and cache keys."""

import json
from hashlib import file_digest, sha1, sha256
from pathlib import Path


def hash_json(value: object) -> str:
    """Return the sha256 of a value as JSON with sorted keys; other types are hashed by their `str`."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def hash_prompt(*texts: str) -> str:
    """Return a short hash (16 hex digits of sha1) of the texts of a prompt."""
    return sha1("\x1f".join(texts).encode()).hexdigest()[:16]


def hash_text(text: str) -> str:
    """Return the sha256 of a text in UTF-8."""
    return sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, or an empty string if it does not exist."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""
