"""Results on disk: one JSON file per cell, written whole or not at all; predictions beside it; a lock while it runs.

A result's file name carries its identity, so a result of other code or options is never overwritten: it is stale, and
says which part of its identity changed. Every path inside a result is relative to the results folder.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from time import time
from typing import Any

from benchmark import locks
from benchmark.grid import Planned, changed
from tasks.example import UsageError

SCHEMA = 1
STATES = ("planned", "running", "done", "failed", "stale")
LONG = ("parts", "training", "environment")  # what few ask of a result
FILES = ("predictions", "artefact")  # of a result, beside it
VERSION = 1  # of the index


class Result(dict):
    """A result as its file has it; what is long is read when it is asked for."""

    def __init__(self, short: Mapping[str, Any], path: Path) -> None:
        super().__init__(short)
        self.path = path

    def __missing__(self, key: str) -> Any:
        whole = load(self.path) or {}
        self.update({name: whole[name] for name in LONG if name in whole})
        if key not in self:
            raise KeyError(key)
        return self[key]


class Store:
    """A results folder."""

    def __init__(self, folder: Path, tried: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self.tried = tried or {}  # identity -> when the result was written for which a cell is tried again

    def path(self, planned: Planned) -> Path:
        return self.folder / "cells" / f"{planned.name}.json"

    def predictions(self, planned: Planned) -> Path:
        return self.folder / "predictions" / f"{planned.name}.parquet"

    def artefact(self, identity: str) -> Path:
        """What a cell learned, found by content: whoever needs the same, shares it."""
        return self.folder / "adapters" / f"{identity[:20]}.safetensors"

    def lock_path(self, planned: Planned) -> Path:
        return self.folder / "locks" / f"{planned.name}.lock"

    # ---------------------------------------------------------------- results

    def save(self, planned: Planned, result: Mapping[str, Any]) -> None:
        whole = {"schema": SCHEMA, **result}
        try:
            text = json.dumps(whole | {"seal": seal(whole)}, ensure_ascii=False, indent=1, allow_nan=False)
        except ValueError as error:
            raise NotANumber("a metric, a curve or a cost of this cell is not a number") from error
        write(self.path(planned), text.encode())

    def read(self, planned: Planned) -> dict[str, Any] | None:
        """The result of exactly this identity, if there is one."""
        result = load(self.path(planned))
        return result if result and result.get("identity") == planned.identity else None

    def done(self, planned: Planned) -> bool:
        result = self.read(planned)
        return result is not None and self.complete(planned, result)

    def complete(self, planned: Planned, result: Mapping[str, Any]) -> bool:
        """Done, with its predictions, and with what it learned where others rest on it."""
        if result["state"] != "done" or not self.there(result.get("predictions")):
            return False
        return not planned.needed or (self.artefact(planned.identity).is_file() and self.there(result.get("artefact")))

    def there(self, said: Mapping[str, Any] | None) -> bool:
        """Whether a file that a result names is as long as it was (results of old did not say how long)."""
        if not said or "bytes" not in said:
            return True
        try:
            return (self.folder / said["file"]).stat().st_size == said["bytes"]
        except (FileNotFoundError, NotADirectoryError):
            return False

    def damaged(self, planned: Planned, result: Mapping[str, Any]) -> bool:
        """Whether a file of a result has another content than when it was written."""
        for said in (result.get("predictions"), result.get("artefact") if planned.needed else None):
            if said and "bytes" in said and content(self.folder / said["file"]) != said["sha256"]:
                return True
        return False

    def over(self, planned: Planned) -> dict[str, Any] | None:
        """The result of a cell that is done, or failed, and not the one for which it is tried again."""
        result = self.read(planned)
        if not result or self.tried.get(planned.identity) == result["times"]["finished"]:
            return None
        return result if result["state"] == "failed" or self.complete(planned, result) else None

    def results(self) -> list["Result"]:
        """Every readable result of the folder, oldest first; all but new ones come from one file, the index."""
        folder, index = self.folder / "cells", self.folder / "index.json"
        if not folder.is_dir():
            return []
        known, found = remembered(index), {}
        with os.scandir(folder) as entries:
            for entry in (entry for entry in entries if entry.name.endswith(".json")):
                try:
                    fact, name = entry.stat(), entry.name
                except FileNotFoundError:  # somebody removed it meanwhile
                    continue
                stamp = [fact.st_mtime_ns, fact.st_size]
                if name in known and known[name][0] == stamp:
                    found[name] = known[name]
                elif result := load(folder / name):
                    found[name] = [stamp, {key: value for key, value in result.items() if key not in LONG}]
        if found != known:
            with suppress(Unwritable):  # a folder that one may only read costs time, not results
                text = json.dumps({"version": VERSION, "results": found}, ensure_ascii=False)
                write(index, f"{text}\n{digest(text)}".encode())
        results = [Result(short, folder / name) for name, (_, short) in found.items()]
        return sorted(results, key=lambda result: result["times"]["finished"])

    def save_predictions(self, planned: Planned, columns: Mapping[str, Sequence]) -> dict[str, Any]:
        """A column per kind of fact, a row per example. -> what the result says about the file."""
        import pyarrow
        import pyarrow.parquet

        sink = pyarrow.BufferOutputStream()
        table = pyarrow.table(dict(columns))
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        data, path = sink.getvalue().to_pybytes(), self.predictions(planned)
        return self.keep(path, data) | {"rows": table.num_rows}

    def keep(self, path: Path, data: bytes) -> dict[str, Any]:
        """Write a file that belongs to a result. -> what the result says about it."""
        write(path, data)
        name = path.relative_to(self.folder).as_posix()
        return {"file": name, "sha256": sha256(data).hexdigest(), "bytes": len(data)}

    # ---------------------------------------------------------------- states

    def state(self, planned: Planned) -> tuple[str, str]:
        return self.states([planned], self.results())[0]

    def states(
        self, cells: Sequence[Planned], results: Sequence[Mapping[str, Any]], *, thorough: bool = False
    ) -> list[tuple[str, str]]:
        """(one of STATES, why) of each cell, from all results of the folder, oldest first.

        `thorough` also reads the files that results name: what was damaged since is due again.
        """
        by_identity = {result["identity"]: result for result in results}
        newest = {result["key"]: result for result in results}
        locked = {path.stem for path in (self.folder / "locks").glob("*.lock")}
        found = []
        for planned in cells:
            result, old = by_identity.get(planned.identity), newest.get(planned.cell.key)
            if planned.name in locked and self.running(planned):
                found.append(("running", since(self.lock_path(planned))))
            elif result and result["state"] == "failed":
                found.append(("failed", result["error"]["reason"]))
            elif result and self.complete(planned, result) and thorough and self.damaged(planned, result):
                found.append(("planned", "its files are damaged"))
            elif result and self.complete(planned, result):
                found.append(("done", ""))
            elif old and old["identity"] != planned.identity:
                found.append(("stale", ", ".join(changed(old["parts"], planned.parts))))
            else:
                found.append(("planned", ""))
        return found

    def running(self, planned: Planned) -> bool:
        return locks.held(self.lock_path(planned))

    @contextmanager
    def lock(self, cells: Sequence[Planned]) -> Iterator[list[Planned]]:
        """Those of the cells that are this process's alone, kept alive by a heartbeat until the end."""
        paths = {self.lock_path(planned): planned for planned in cells}
        with ExitStack() as stack:
            with writing(self.folder):
                mine = stack.enter_context(locks.hold(list(paths)))
            yield [paths[path] for path in mine]

    def unlock(self, cells: Iterable[Planned], process: int) -> None:
        """Take away what a process of this machine left locked when it died."""
        for planned in cells:
            locks.release(self.lock_path(planned), process=process)


# -------------------------------------------------------------------- files


class NotANumber(ValueError):
    """A result that JSON cannot hold."""


class Unwritable(UsageError):
    """A folder takes no more: no fault of a cell, and no cell can go on."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the file system refuses, in one line."""
    try:
        yield
    except OSError as error:
        said = f"results folder {folder}: {error.strerror or error}; what is finished is kept"
        raise Unwritable(f"{said}, make room there (or name another with --results DIR) and run again") from error


def write(path: Path, data: bytes) -> None:
    """The whole file or nothing: a temporary name, synced, renamed."""
    scratch = locks.own(path)
    with writing(path.parent):
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


def since(lock: Path) -> str:
    """How long ago a lock was taken."""
    owner = locks.owner_of(lock)
    return f"for {max(0, time() - owner['since']):.0f} s" if owner and "since" in owner else ""


def seal(result: Mapping[str, Any]) -> str:
    """Tells whether a result is what was written: a wrong digit reads as well as a right one."""
    return digest(json.dumps(json.loads(json.dumps(result)), sort_keys=True))[:16]


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def content(path: Path) -> str:
    """sha256 of a file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def remembered(index: Path) -> dict[str, list]:
    """File name -> (its stamp, the result less what is long), of an earlier look; nothing where that is torn or old."""
    try:
        text, _, sealed = index.read_text(encoding="utf-8").rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    said = json.loads(text) if text and sealed == digest(text) else {}
    return said["results"] if isinstance(said, dict) and said.get("version") == VERSION else {}


def load(path: Path) -> dict[str, Any] | None:
    """A result, or None where there is none that can be read (a file torn by a full disk is repeated)."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read; name another results folder with --results DIR") from error
    if not isinstance(result, dict) or "schema" not in result:
        return None
    if result["schema"] != SCHEMA:
        found = f"{path}: schema {result['schema']}, this version reads {SCHEMA}"
        raise UsageError(f"{found}; use another results folder (--results DIR)")
    for name in FILES:
        if Path(file := (result.get(name) or {}).get("file", "")).is_absolute() or ".." in Path(file).parts:
            raise UsageError(f"{path}: names a file outside of its folder: {file!r}; delete it if it is not yours")
    said = result.pop("seal", None)  # those of old have none
    return result if said in (None, seal(result)) else None
