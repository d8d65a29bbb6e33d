"""TODO."""

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


def get_scratch_path(path: Path) -> Path:
    """A file for this process alone, beside the one that it is for."""
    return path.with_name(f".{path.name}.{get_machine_id()}.{os.getpid()}")


def remove_orphaned_files(folder: Path) -> None:
    """Remove what processes left behind when they died: half-written files of this machine, half-done take-overs."""
    for path in (*folder.glob(f".*.{get_machine_id()}.*"), *folder.glob(f"*/.*.{get_machine_id()}.*")):
        process = path.name.rpartition(".")[2]
        if process.isdigit() and not is_process_alive(int(process)):
            path.unlink(missing_ok=True)
    with hold_locks(list(folder.glob("locks/*.lock.*"))):
        pass


ATTACHED_FILE_KEYS = ("predictions", "artefact")  # of a result, beside it


class NonFiniteValueError(ValueError):
    """A result that JSON cannot hold."""


class FolderNotWritableError(UsageError):
    """A folder takes no more: no fault of a cell, and no cell can go on."""


@contextmanager
def convert_write_errors(folder: Path) -> Iterator[None]:
    """What the file system refuses, in one line."""
    try:
        yield
    except OSError as error:
        said = f"results folder {folder}: {error.strerror or error}; what is finished is kept"
        raise FolderNotWritableError(
            f"{said}, make room there (or name another with --results DIR) and run again"
        ) from error


def write_file_atomically(path: Path, data: bytes) -> None:
    """The whole file or nothing: a temporary name, synced, renamed."""
    scratch = get_scratch_path(path)
    with convert_write_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)  # on a full disk it would keep the room that the next one needs
            raise


def compute_checksum(result: Mapping[str, Any]) -> str:
    """Tells whether a result is what was written: a wrong digit reads as well as a right one."""
    return hash_text(json.dumps(json.loads(json.dumps(result)), sort_keys=True))[:16]


def read_result_file(path: Path) -> dict[str, Any] | None:
    """A result, or None where there is none that can be read (a file torn by a full disk is repeated)."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read; name another results folder with --results DIR") from error
    if not isinstance(result, dict) or "schema" not in result:
        return None
    if result["schema"] != SCHEMA_VERSION:
        found = f"{path}: schema {result['schema']}, this version reads {SCHEMA_VERSION}"
        raise UsageError(f"{found}; use another results folder (--results DIR)")
    for name in ATTACHED_FILE_KEYS:
        if Path(file := (result.get(name) or {}).get("file", "")).is_absolute() or ".." in Path(file).parts:
            raise UsageError(f"{path}: names a file outside of its folder: {file!r}; delete it if it is not yours")
    said = result.pop("seal", None)  # those of old have none
    return result if said in (None, compute_checksum(result)) else None
