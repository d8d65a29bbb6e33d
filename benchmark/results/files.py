"""Result files: atomic writing, checksums, and reading that treats damaged files as missing."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.results.locks import get_machine_id, hold_locks, is_process_alive
from benchmark.results.schema import SCHEMA_VERSION
from benchmark.system.hashing import hash_text
from tasks.core.types import UsageError

ATTACHED_FILE_KEYS = ("predictions", "adapter")  # fields of a result that name a file


class NonFiniteValueError(ValueError):
    """A result contains NaN or infinity, which JSON cannot represent."""


class FolderNotWritableError(UsageError):
    """The results folder cannot be written (disk full, read-only); aborts the run rather than the cell."""


def get_scratch_path(path: Path) -> Path:
    """Temporary path next to `path`, unique to this process."""
    return path.with_name(f".{path.name}.{get_machine_id()}.{os.getpid()}")


def remove_orphaned_files(folder: Path) -> None:
    """Remove files that dead processes of this machine left: temporary files and locks of unfinished takeovers."""
    for path in (*folder.glob(f".*.{get_machine_id()}.*"), *folder.glob(f"*/.*.{get_machine_id()}.*")):
        process_id = path.name.rpartition(".")[2]
        if process_id.isdigit() and not is_process_alive(int(process_id)):
            path.unlink(missing_ok=True)
    with hold_locks(list(folder.glob("locks/*.lock.*"))):  # acquiring and releasing a stale lock removes it
        pass


@contextmanager
def convert_write_errors(folder: Path) -> Iterator[None]:
    """Convert an OSError raised in the block into a one-line `FolderNotWritableError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise FolderNotWritableError(
            f"results folder {folder}: {reason}; what is finished is kept, "
            "free some space there (or choose another folder with --results DIR) and run again"
        ) from error


def write_file_atomically(path: Path, data: bytes) -> None:
    """Write a file completely or not at all: to a temporary name, synced to disk, then renamed.

    Raises `FolderNotWritableError` if the file system refuses.
    """
    scratch_path = get_scratch_path(path)
    with convert_write_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch_path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch_path.replace(path)
        except OSError:
            scratch_path.unlink(missing_ok=True)  # on a full disk it would occupy the space that the next file needs
            raise


def add_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the schema version and the checksum to the JSON of a result."""
    fields = {"schema": SCHEMA_VERSION, **values}
    return fields | {"checksum": compute_checksum(fields)}


def compute_checksum(result: Mapping[str, Any]) -> str:
    """Checksum of a result's fields, which detects changes that leave valid JSON, such as a wrong digit."""
    return hash_text(json.dumps(json.loads(json.dumps(result)), sort_keys=True))[:16]


def read_result_file(path: Path) -> dict[str, Any] | None:
    """Return the JSON of a result, or None if the file is missing or damaged (the cell is then run again).

    Raises `UsageError` if the file is not readable, has another schema, or names a file outside of the folder.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read; name another results folder with --results DIR") from error
    if not isinstance(result, dict) or "schema" not in result:
        return None
    if result["schema"] != SCHEMA_VERSION:
        versions = f"schema {result['schema']}, this version reads {SCHEMA_VERSION}"
        raise UsageError(f"{path}: {versions}; use another results folder (--results DIR)")
    for key in ATTACHED_FILE_KEYS:
        file = (result.get(key) or {}).get("path", "")
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise UsageError(f"{path}: names a file outside of its folder: {file!r}; delete it if it is not yours")
    checksum = result.pop("checksum", None)
    return result if checksum == compute_checksum(result) else None
