"""Results on disk: one JSON file per cell, written whole or not at all; predictions beside it; a lock while it runs.

A result's file name carries its identity, so a result of other code or options is never overwritten: it is stale, and
says which part of its identity changed. Every path inside a result is relative to the results folder.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmark.grid.cells import PlannedCell
from benchmark.grid.identity import describe_changes
from benchmark.results import locks
from benchmark.results.files import (
    FolderNotWritableError,
    NonFiniteValueError,
    compute_checksum,
    convert_write_errors,
    read_result_file,
    write_file_atomically,
)
from benchmark.results.index import DEFERRED_KEYS, INDEX_VERSION, IndexedResult, read_index
from benchmark.results.locks import format_lock_age
from benchmark.results.schema import SCHEMA_VERSION
from benchmark.system.hashing import hash_file, hash_text


class ResultStore:
    """A results folder."""

    def __init__(self, folder: Path, previous_attempts: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self.previous_attempts = (
            previous_attempts or {}
        )  # identity -> when the result was written for which a cell is tried again

    def get_result_path(self, planned_cell: PlannedCell) -> Path:
        return self.folder / "cells" / f"{planned_cell.file_stem}.json"

    def get_predictions_path(self, planned_cell: PlannedCell) -> Path:
        return self.folder / "predictions" / f"{planned_cell.file_stem}.parquet"

    def get_adapter_path(self, identity: str) -> Path:
        """What a cell learned, found by content: whoever needs the same, shares it."""
        return self.folder / "adapters" / f"{identity[:20]}.safetensors"

    def get_lock_path(self, planned_cell: PlannedCell) -> Path:
        return self.folder / "locks" / f"{planned_cell.file_stem}.lock"

    # ---------------------------------------------------------------- results

    def save_result(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> None:
        whole = {"schema": SCHEMA_VERSION, **result}
        try:
            text = json.dumps(whole | {"seal": compute_checksum(whole)}, ensure_ascii=False, indent=1, allow_nan=False)
        except ValueError as error:
            raise NonFiniteValueError("a metric, a curve or a cost of this cell is not a number") from error
        write_file_atomically(self.get_result_path(planned_cell), text.encode())

    def load_result(self, planned_cell: PlannedCell) -> dict[str, Any] | None:
        """The result of exactly this identity, if there is one."""
        result = read_result_file(self.get_result_path(planned_cell))
        return result if result and result.get("identity") == planned_cell.identity else None

    def is_done(self, planned_cell: PlannedCell) -> bool:
        result = self.load_result(planned_cell)
        return result is not None and self.is_complete(planned_cell, result)

    def is_complete(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> bool:
        """Done, with its predictions, and with what it learned where others rest on it."""
        if result["state"] != "done" or not self.has_file(result.get("predictions")):
            return False
        return not planned_cell.should_save_adapter or (
            self.get_adapter_path(planned_cell.identity).is_file() and self.has_file(result.get("artefact"))
        )

    def has_file(self, file_record: Mapping[str, Any] | None) -> bool:
        """Whether a file that a result names is as long as it was (results of old did not say how long)."""
        if not file_record or "bytes" not in file_record:
            return True
        try:
            return (self.folder / file_record["file"]).stat().st_size == file_record["bytes"]
        except (FileNotFoundError, NotADirectoryError):
            return False

    def has_damaged_files(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> bool:
        """Whether a file of a result has another content than when it was written."""
        for said in (result.get("predictions"), result.get("artefact") if planned_cell.should_save_adapter else None):
            if said and "bytes" in said and hash_file(self.folder / said["file"]) != said["sha256"]:
                return True
        return False

    def load_finished_result(self, planned_cell: PlannedCell) -> dict[str, Any] | None:
        """The result of a cell that is done, or failed, and not the one for which it is tried again."""
        result = self.load_result(planned_cell)
        if not result or self.previous_attempts.get(planned_cell.identity) == result["times"]["finished"]:
            return None
        return result if result["state"] == "failed" or self.is_complete(planned_cell, result) else None

    def load_results(self) -> list["IndexedResult"]:
        """Every readable result of the folder, oldest first; all but new ones come from one file, the index."""
        folder, index = self.folder / "cells", self.folder / "index.json"
        if not folder.is_dir():
            return []
        known, found = read_index(index), {}
        with os.scandir(folder) as entries:
            for entry in (entry for entry in entries if entry.name.endswith(".json")):
                try:
                    fact, name = entry.stat(), entry.name
                except FileNotFoundError:  # somebody removed it meanwhile
                    continue
                stamp = [fact.st_mtime_ns, fact.st_size]
                if name in known and known[name][0] == stamp:
                    found[name] = known[name]
                elif result := read_result_file(folder / name):
                    found[name] = [stamp, {key: value for key, value in result.items() if key not in DEFERRED_KEYS}]
        if found != known:
            with suppress(FolderNotWritableError):  # a folder that one may only read costs time, not results
                text = json.dumps({"version": INDEX_VERSION, "results": found}, ensure_ascii=False)
                write_file_atomically(index, f"{text}\n{hash_text(text)}".encode())
        results = [IndexedResult(short, folder / name) for name, (_, short) in found.items()]
        return sorted(results, key=lambda result: result["times"]["finished"])

    def save_predictions(self, planned_cell: PlannedCell, columns: Mapping[str, Sequence]) -> dict[str, Any]:
        """A column per kind of fact, a row per example. -> what the result says about the file."""
        import pyarrow
        import pyarrow.parquet

        sink = pyarrow.BufferOutputStream()
        table = pyarrow.table(dict(columns))
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        data, path = sink.getvalue().to_pybytes(), self.get_predictions_path(planned_cell)
        return self.save_attachment(path, data) | {"rows": table.num_rows}

    def save_attachment(self, path: Path, data: bytes) -> dict[str, Any]:
        """Write a file that belongs to a result. -> what the result says about it."""
        write_file_atomically(path, data)
        name = path.relative_to(self.folder).as_posix()
        return {"file": name, "sha256": sha256(data).hexdigest(), "bytes": len(data)}

    # ---------------------------------------------------------------- states

    def compute_status(self, planned_cell: PlannedCell) -> tuple[str, str]:
        return self.compute_statuses([planned_cell], self.load_results())[0]

    def compute_statuses(
        self, planned_cells: Sequence[PlannedCell], results: Sequence[Mapping[str, Any]], *, verify_files: bool = False
    ) -> list[tuple[str, str]]:
        """(one of STATES, why) of each cell, from all results of the folder, oldest first.

        `thorough` also reads the files that results name: what was damaged since is due again.
        """
        by_identity = {result["identity"]: result for result in results}
        newest = {result["key"]: result for result in results}
        locked = {path.stem for path in (self.folder / "locks").glob("*.lock")}
        found = []
        for planned in planned_cells:
            result, old = by_identity.get(planned.identity), newest.get(planned.cell.key)
            if planned.file_stem in locked and self.is_running(planned):
                found.append(("running", format_lock_age(self.get_lock_path(planned))))
            elif result and result["state"] == "failed":
                found.append(("failed", result["error"]["reason"]))
            elif (
                result
                and self.is_complete(planned, result)
                and verify_files
                and self.has_damaged_files(planned, result)
            ):
                found.append(("planned", "its files are damaged"))
            elif result and self.is_complete(planned, result):
                found.append(("done", ""))
            elif old and old["identity"] != planned.identity:
                found.append(("stale", ", ".join(describe_changes(old["parts"], planned.identity_inputs))))
            else:
                found.append(("planned", ""))
        return found

    def is_running(self, planned_cell: PlannedCell) -> bool:
        return locks.is_lock_held(self.get_lock_path(planned_cell))

    @contextmanager
    def lock_cells(self, planned_cells: Sequence[PlannedCell]) -> Iterator[list[PlannedCell]]:
        """Those of the cells that are this process's alone, kept alive by a heartbeat until the end."""
        paths = {self.get_lock_path(planned): planned for planned in planned_cells}
        with ExitStack() as stack:
            with convert_write_errors(self.folder):
                mine = stack.enter_context(locks.hold_locks(list(paths)))
            yield [paths[path] for path in mine]

    def release_locks(self, planned_cells: Iterable[PlannedCell], process_id: int) -> None:
        """Take away what a process of this machine left locked when it died."""
        for planned in planned_cells:
            locks.release_lock(self.get_lock_path(planned), process=process_id)


# -------------------------------------------------------------------- files
