"""TODO."""

import json
from hashlib import file_digest, sha1, sha256
from pathlib import Path


def hash_json(value: object) -> str:
    """sha256 of anything JSON can hold."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def hash_prompt(*texts: str) -> str:
    return sha1("\x1f".join(texts).encode()).hexdigest()[:16]


def hash_text(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""
