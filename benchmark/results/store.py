"""Results folder: one JSON file per cell, written atomically, with its predictions, adapter and lock file.

The file name of a result contains the identity of its cell, so a result of other code or options is never overwritten.
It becomes stale, and its status names the inputs of the identity that changed. Every path inside a result is relative
to the results folder.
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
from benchmark.results.schema import SCHEMA_VERSION, CellStatus
from benchmark.system.hashing import hash_file, hash_text


class ResultStore:
    """Reads and writes the results, predictions, adapters and locks of one results folder.

    `previous_attempts` maps the identity of a cell that is run again to the time its earlier result was written; that
    result does not count as finished. Writing raises `FolderNotWritableError` where the file system refuses.
    """

    def __init__(self, folder: Path, previous_attempts: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self.previous_attempts = previous_attempts or {}

    def get_result_path(self, planned_cell: PlannedCell) -> Path:
        """Path of a cell's result (JSON)."""
        return self.folder / "cells" / f"{planned_cell.file_stem}.json"

    def get_predictions_path(self, planned_cell: PlannedCell) -> Path:
        """Path of a cell's predictions (Parquet)."""
        return self.folder / "predictions" / f"{planned_cell.file_stem}.parquet"

    def get_adapter_path(self, identity: str) -> Path:
        """Path of the trained adapter; content-addressed by cell identity, so dependants share it."""
        return self.folder / "adapters" / f"{identity[:20]}.safetensors"

    def get_lock_path(self, planned_cell: PlannedCell) -> Path:
        """Path of a cell's lock file."""
        return self.folder / "locks" / f"{planned_cell.file_stem}.lock"

    # ---------------------------------------------------------------- results

    def save_result(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> None:
        """Write a result with its checksum; raises `NonFiniteValueError` if it holds NaN or infinity."""
        fields = {"schema": SCHEMA_VERSION, **result}
        try:
            text = json.dumps(
                fields | {"seal": compute_checksum(fields)}, ensure_ascii=False, indent=1, allow_nan=False
            )
        except ValueError as error:
            raise NonFiniteValueError("a metric, a curve or a cost of this cell is NaN or infinite") from error
        write_file_atomically(self.get_result_path(planned_cell), text.encode())

    def load_result(self, planned_cell: PlannedCell) -> dict[str, Any] | None:
        """Return the result with exactly this identity, or None."""
        result = read_result_file(self.get_result_path(planned_cell))
        return result if result and result.get("identity") == planned_cell.identity else None

    def is_done(self, planned_cell: PlannedCell) -> bool:
        """Whether the cell has a complete result."""
        result = self.load_result(planned_cell)
        return result is not None and self.is_complete(planned_cell, result)

    def is_complete(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> bool:
        """Whether the result is done and its predictions, and its adapter if it has to be saved, exist."""
        if result["state"] != "done" or not self.has_file(result.get("predictions")):
            return False
        return not planned_cell.should_save_adapter or (
            self.get_adapter_path(planned_cell.identity).is_file() and self.has_file(result.get("artefact"))
        )

    def has_file(self, file_record: Mapping[str, Any] | None) -> bool:
        """Whether a file that a result names exists with its recorded size (old results record none: True)."""
        if not file_record or "bytes" not in file_record:
            return True
        try:
            return (self.folder / file_record["file"]).stat().st_size == file_record["bytes"]
        except (FileNotFoundError, NotADirectoryError):
            return False

    def has_damaged_files(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> bool:
        """Whether the content of a result's file has changed since it was written."""
        file_records = [result.get("predictions")]
        if planned_cell.should_save_adapter:
            file_records.append(result.get("artefact"))
        return any(
            record and "bytes" in record and hash_file(self.folder / record["file"]) != record["sha256"]
            for record in file_records
        )

    def load_finished_result(self, planned_cell: PlannedCell) -> dict[str, Any] | None:
        """Return the result of a cell that is done or failed, unless the cell is being run again because of it."""
        result = self.load_result(planned_cell)
        if not result or self.previous_attempts.get(planned_cell.identity) == result["times"]["finished"]:
            return None
        return result if result["state"] == "failed" or self.is_complete(planned_cell, result) else None

    def load_results(self) -> list["IndexedResult"]:
        """Return every readable result of the folder, oldest first.

        Results that have not changed since the last call are read from the index, a single file, which is then updated.
        """
        folder = self.folder / "cells"
        index_path = self.folder / "index.json"
        if not folder.is_dir():
            return []
        old_entries = read_index(index_path)
        entries: dict[str, list] = {}
        with os.scandir(folder) as files:
            for file in files:
                name = file.name
                if not name.endswith(".json"):
                    continue
                try:
                    file_status = file.stat()
                except FileNotFoundError:  # removed by another process in the meantime
                    continue
                stamp = [file_status.st_mtime_ns, file_status.st_size]
                if name in old_entries and old_entries[name][0] == stamp:
                    entries[name] = old_entries[name]
                elif result := read_result_file(folder / name):
                    entries[name] = [stamp, {key: value for key, value in result.items() if key not in DEFERRED_KEYS}]
        if entries != old_entries:
            with suppress(FolderNotWritableError):  # without an index, loading a read-only folder only takes longer
                text = json.dumps({"version": INDEX_VERSION, "results": entries}, ensure_ascii=False)
                write_file_atomically(index_path, f"{text}\n{hash_text(text)}".encode())
        results = [IndexedResult(indexed_fields, folder / name) for name, (_, indexed_fields) in entries.items()]
        return sorted(results, key=lambda result: result["times"]["finished"])

    def save_predictions(self, planned_cell: PlannedCell, columns: Mapping[str, Sequence]) -> dict[str, Any]:
        """Write a table with one row per example and return its file record: file, sha256, bytes, rows."""
        import pyarrow
        import pyarrow.parquet

        sink = pyarrow.BufferOutputStream()
        table = pyarrow.table(dict(columns))
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        path = self.get_predictions_path(planned_cell)
        return self.save_attachment(path, sink.getvalue().to_pybytes()) | {"rows": table.num_rows}

    def save_attachment(self, path: Path, data: bytes) -> dict[str, Any]:
        """Write a file that belongs to a result and return its file record: file (relative), sha256, bytes."""
        write_file_atomically(path, data)
        name = path.relative_to(self.folder).as_posix()
        return {"file": name, "sha256": sha256(data).hexdigest(), "bytes": len(data)}

    # ---------------------------------------------------------------- states

    def compute_status(self, planned_cell: PlannedCell) -> CellStatus:
        """Compute the status of one cell from all results of the folder."""
        return self.compute_statuses([planned_cell], self.load_results())[0]

    def compute_statuses(
        self, planned_cells: Sequence[PlannedCell], results: Sequence[Mapping[str, Any]], *, verify_files: bool = False
    ) -> list[CellStatus]:
        """Compute the status of each cell from `results`, all results of the folder, oldest first.

        With `verify_files`, the files that results name are read, and a cell whose files are damaged is due again.
        """
        by_identity = {result["identity"]: result for result in results}
        newest = {result["key"]: result for result in results}
        locked = {path.stem for path in (self.folder / "locks").glob("*.lock")}
        statuses = []
        for planned in planned_cells:
            result = by_identity.get(planned.identity)
            old = newest.get(planned.cell.key)
            if planned.file_stem in locked and self.is_running(planned):
                statuses.append(CellStatus("running", format_lock_age(self.get_lock_path(planned))))
            elif result and result["state"] == "failed":
                statuses.append(CellStatus("failed", result["error"]["reason"]))
            elif (
                result
                and self.is_complete(planned, result)
                and verify_files
                and self.has_damaged_files(planned, result)
            ):
                statuses.append(CellStatus("planned", "its files are damaged"))
            elif result and self.is_complete(planned, result):
                statuses.append(CellStatus("done", ""))
            elif old and old["identity"] != planned.identity:
                changes = describe_changes(old["parts"], planned.identity_inputs)
                statuses.append(CellStatus("stale", ", ".join(changes)))
            else:
                statuses.append(CellStatus("planned", ""))
        return statuses

    def is_running(self, planned_cell: PlannedCell) -> bool:
        """Whether a live process holds the lock of the cell."""
        return locks.is_lock_held(self.get_lock_path(planned_cell))

    @contextmanager
    def lock_cells(self, planned_cells: Sequence[PlannedCell]) -> Iterator[list[PlannedCell]]:
        """Lock cells for the duration of the block; yields those that were free. A heartbeat keeps the locks alive."""
        paths = {self.get_lock_path(planned): planned for planned in planned_cells}
        with ExitStack() as stack:
            with convert_write_errors(self.folder):
                locked = stack.enter_context(locks.hold_locks(list(paths)))
            yield [paths[path] for path in locked]

    def release_locks(self, planned_cells: Iterable[PlannedCell], process_id: int) -> None:
        """Remove the locks that a dead process of this machine left on these cells."""
        for planned in planned_cells:
            locks.release_lock(self.get_lock_path(planned), process=process_id)
