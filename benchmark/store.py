"""Results on disk: one JSON file per cell, written whole or not at all; predictions beside it; a lock while it runs.

A result's file name carries its identity, so a result of other code or options is never overwritten: it is stale, and
says which part of its identity changed. Every path inside a result is relative to the results folder.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

from benchmark.grid import Planned, changed
from tasks.example import UsageError

SCHEMA = 1
STATES = ("planned", "running", "done", "failed", "stale")
LONG = ("parts", "training", "environment")  # what few ask of a result
VERSION = 1  # of the index
BEAT, DEAD = 5.0, 60.0  # seconds between heartbeats; after which a lock without one belongs to nobody


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

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

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
        text = json.dumps({"schema": SCHEMA, **result}, ensure_ascii=False, indent=1, allow_nan=False)
        write(self.path(planned), text.encode())

    def read(self, planned: Planned) -> dict[str, Any] | None:
        """The result of exactly this identity, if there is one."""
        result = load(self.path(planned))
        return result if result and result.get("identity") == planned.identity else None

    def done(self, planned: Planned) -> bool:
        result = self.read(planned)
        return bool(result) and self.complete(planned, result)

    def complete(self, planned: Planned, result: Mapping[str, Any]) -> bool:
        """Done, and with what it learned where others rest on it."""
        return result["state"] == "done" and (not planned.needed or self.artefact(planned.identity).is_file())

    def results(self) -> list["Result"]:
        """Every readable result of the folder, oldest first; all but new ones come from one file, the index."""
        folder, index = self.folder / "cells", self.folder / "index.json"
        if not folder.is_dir():
            return []
        known, found = remembered(index), {}
        with os.scandir(folder) as entries:
            for name, fact in ((entry.name, entry.stat()) for entry in entries if entry.name.endswith(".json")):
                stamp = [fact.st_mtime_ns, fact.st_size]
                if name in known and known[name][0] == stamp:
                    found[name] = known[name]
                elif result := load(folder / name):
                    found[name] = [stamp, {key: value for key, value in result.items() if key not in LONG}]
        if found != known:
            with suppress(OSError):  # a folder that one may only read costs time, not results
                write(index, json.dumps({"version": VERSION, "results": found}, ensure_ascii=False).encode())
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
        write(path, data)
        return {"file": self.relative(path), "sha256": sha256(data).hexdigest(), "rows": table.num_rows}

    def relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    # ---------------------------------------------------------------- states

    def state(self, planned: Planned) -> tuple[str, str]:
        return self.states([planned], self.results())[0]

    def states(self, cells: Sequence[Planned], results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """(one of STATES, why) of each cell, from all results of the folder, oldest first."""
        by_identity = {result["identity"]: result for result in results}
        newest = {result["key"]: result for result in results}
        locked = {path.stem for path in (self.folder / "locks").glob("*.lock")}
        found = []
        for planned in cells:
            result, old = by_identity.get(planned.identity), newest.get(planned.cell.key)
            if planned.name in locked and self.running(planned):
                found.append(("running", ""))
            elif result and result["state"] == "failed":
                found.append(("failed", result["error"]["reason"]))
            elif result and self.complete(planned, result):
                found.append(("done", ""))
            elif old and old["identity"] != planned.identity:
                found.append(("stale", ", ".join(changed(old["parts"], planned.parts))))
            else:
                found.append(("planned", ""))
        return found

    def running(self, planned: Planned) -> bool:
        return held(self.lock_path(planned))

    @contextmanager
    def lock(self, cells: Sequence[Planned]) -> Iterator[list[Planned]]:
        """Those of the cells that are this process's alone, kept alive by a heartbeat until the end."""
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        mine = [planned for planned in cells if take(self.lock_path(planned))]
        paths, over = [self.lock_path(planned) for planned in mine], threading.Event()
        beat = threading.Thread(target=_beat, args=(paths, over), daemon=True)
        beat.start()
        try:
            yield mine
        finally:
            over.set()
            beat.join()
            for path in paths:
                path.unlink(missing_ok=True)


# -------------------------------------------------------------------- files


def write(path: Path, data: bytes) -> None:
    """The whole file or nothing: a temporary name, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def remembered(index: Path) -> dict[str, list]:
    """File name -> (its stamp, the result less what is long), of an earlier look; nothing where that is torn or old."""
    try:
        said = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
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
    return result


# -------------------------------------------------------------------- locks


def take(path: Path) -> bool:
    """Create the lock file; take over one that nobody holds any more."""
    for _ in range(2):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            if held(path):
                return False
            grave = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            try:
                path.rename(grave)  # one of several takers gets it
            except FileNotFoundError:
                continue
            grave.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "w") as file:
            json.dump({"process": os.getpid(), "machine": machine(), "since": time.time()}, file)
        return True
    return False


def held(path: Path) -> bool:
    """Whether a lock's process still lives: known on this machine, elsewhere judged by its heartbeat."""
    try:
        age = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except json.JSONDecodeError:
        return age < DEAD  # just being written
    if owner["machine"] == machine() and not alive(owner["process"]):
        return False
    return age < DEAD


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def machine() -> str:
    """Tells machines apart without naming them."""
    return sha1(socket.gethostname().encode()).hexdigest()[:10]


def _beat(paths: Sequence[Path], over: threading.Event) -> None:
    while not over.wait(BEAT):
        for path in paths:
            with suppress(FileNotFoundError):
                os.utime(path)
