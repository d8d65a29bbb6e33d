"""Results folder: one JSON file per cell, written atomically, with its predictions, adapter and lock file.

The file name of a result contains the identity of its cell, so a result of other code or options is never overwritten.
It becomes stale, and its status names the inputs of the identity that changed. Every path inside a result is relative
to the results folder.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from benchmark.grid.cells import PlannedCell
from benchmark.grid.identity import describe_changes
from benchmark.results import locks
from benchmark.results.cell_result import CellResult
from benchmark.results.files import (
    NonFiniteValueError,
    add_checksum,
    convert_write_errors,
    read_result_file,
    write_file_atomically,
)
from benchmark.results.index import load_indexed_values
from benchmark.results.locks import format_lock_age
from benchmark.results.schema import CellStatus, FileRecord
from benchmark.system.hashing import hash_file


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

    def save_result(self, planned_cell: PlannedCell, result: CellResult) -> None:
        """Write a result with its checksum; raises `NonFiniteValueError` if it holds NaN or infinity."""
        try:
            text = json.dumps(add_checksum(result.to_json()), ensure_ascii=False, indent=1, allow_nan=False)
        except ValueError as error:
            raise NonFiniteValueError("a metric, a curve or a cost of this cell is NaN or infinite") from error
        write_file_atomically(self.get_result_path(planned_cell), text.encode())

    def load_result(self, planned_cell: PlannedCell) -> CellResult | None:
        """Return the result with exactly this identity, or None."""
        path = self.get_result_path(planned_cell)
        values = read_result_file(path)
        return CellResult.from_json(values, path) if values and values["identity"] == planned_cell.identity else None

    def is_done(self, planned_cell: PlannedCell) -> bool:
        """Whether the cell has a complete result."""
        result = self.load_result(planned_cell)
        return result is not None and self.is_complete(planned_cell, result)

    def is_complete(self, planned_cell: PlannedCell, result: CellResult) -> bool:
        """Whether the result is done and its predictions, and its adapter if it has to be saved, exist."""
        if not result.is_done or (planned_cell.should_save_adapter and result.adapter is None):
            return False
        return all(self.has_file(record) for record in self.list_needed_files(planned_cell, result))

    def list_needed_files(self, planned_cell: PlannedCell, result: CellResult) -> list[FileRecord]:
        """Return the files of a result that have to exist: its predictions, and its adapter if others need it."""
        records = [result.predictions, result.adapter if planned_cell.should_save_adapter else None]
        return [record for record in records if record]

    def has_file(self, file_record: FileRecord) -> bool:
        """Whether a file that a result names exists with its recorded size."""
        try:
            return (self.folder / file_record.path).stat().st_size == file_record.num_bytes
        except (FileNotFoundError, NotADirectoryError):
            return False

    def has_damaged_files(self, planned_cell: PlannedCell, result: CellResult) -> bool:
        """Whether the content of a result's file has changed since it was written."""
        return any(
            hash_file(self.folder / record.path) != record.sha256
            for record in self.list_needed_files(planned_cell, result)
        )

    def load_finished_result(self, planned_cell: PlannedCell) -> CellResult | None:
        """Return the result of a cell that is done or failed, unless the cell is being run again because of it."""
        result = self.load_result(planned_cell)
        if not result or self.previous_attempts.get(planned_cell.identity) == result.times.finished:
            return None
        return result if not result.is_done or self.is_complete(planned_cell, result) else None

    def load_results(self) -> list[CellResult]:
        """Return every readable result of the folder, oldest first.

        Results that have not changed since the last call are read from the index, a single file, which is then updated.
        """
        indexed = load_indexed_values(self.folder / "cells", self.folder / "index.json")
        results = [CellResult.from_json(values, path) for path, values in indexed.items()]
        return sorted(results, key=lambda result: result.times.finished)

    def save_predictions(self, planned_cell: PlannedCell, columns: Mapping[str, Sequence]) -> FileRecord:
        """Write a table with one row per example and return its file record."""
        import pyarrow
        import pyarrow.parquet

        sink = pyarrow.BufferOutputStream()
        table = pyarrow.table(dict(columns))
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        record = self.save_file(self.get_predictions_path(planned_cell), sink.getvalue().to_pybytes())
        return replace(record, num_rows=table.num_rows)

    def save_file(self, path: Path, data: bytes) -> FileRecord:
        """Write a file that belongs to a result and return its file record."""
        write_file_atomically(path, data)
        return FileRecord(path.relative_to(self.folder).as_posix(), sha256(data).hexdigest(), len(data))

    # ---------------------------------------------------------------- states

    def compute_statuses(
        self, planned_cells: Sequence[PlannedCell], results: Sequence[CellResult], *, verify_files: bool = False
    ) -> list[CellStatus]:
        """Compute the status of each cell from `results`, all results of the folder, oldest first.

        With `verify_files`, the files that results name are read, and a cell whose files are damaged is due again.
        """
        by_identity = {result.identity: result for result in results}
        newest = {result.key: result for result in results}
        locked = {path.stem for path in (self.folder / "locks").glob("*.lock")}
        statuses = []
        for planned in planned_cells:
            if planned.file_stem in locked and self.is_running(planned):
                status = CellStatus("running", format_lock_age(self.get_lock_path(planned)))
            else:
                result = by_identity.get(planned.identity)
                status = self.compute_idle_status(planned, result, newest.get(planned.cell.key), verify_files)
            statuses.append(status)
        return statuses

    def compute_idle_status(
        self, planned_cell: PlannedCell, result: CellResult | None, newest: CellResult | None, verify_files: bool
    ) -> CellStatus:
        """Compute the status of a cell that does not run, from its result and the newest result with the same key."""
        if result and result.error:
            return CellStatus("failed", result.error.reason)
        if result and self.is_complete(planned_cell, result):
            if verify_files and self.has_damaged_files(planned_cell, result):
                return CellStatus("planned", "its files are damaged")
            return CellStatus("done", "")
        if newest and newest.identity != planned_cell.identity:
            changes = describe_changes(newest.details.identity_inputs, planned_cell.inputs)
            return CellStatus("stale", ", ".join(changes))
        return CellStatus("planned", "")

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
