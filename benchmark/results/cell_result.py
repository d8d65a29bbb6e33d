"""Result of a cell. A result file is its JSON, with the names of the fields as keys."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmark.grid.cells import TARGET_STAGE, Cell
from benchmark.results.files import read_result_file
from benchmark.results.schema import (
    BackboneRecord,
    CellDetails,
    CellTimes,
    Costs,
    DataRecord,
    FileRecord,
    MethodRecord,
    Metrics,
    SourceDiagnostics,
    TaskRecord,
)
from benchmark.system.redaction import FailureDescription
from tasks.core.types import UsageError


@dataclass(frozen=True)
class CellResult:
    """Result of a cell that is done or has failed: a failed cell has `error`, a finished one metrics and costs."""

    identity: str
    cell: Cell
    grid: str  # name of the grid that ran the cell
    suite: str
    times: CellTimes
    dependencies: tuple[str, ...]  # identities of the cells whose trained state this one started from
    method: MethodRecord
    task: TaskRecord  # of a source stage: its first task
    backbone: BackboneRecord
    error: FailureDescription | None = None
    metrics: Metrics | None = None
    data: Mapping[str, DataRecord] = field(default_factory=dict)  # by training task
    costs: Costs | None = None
    predictions: FileRecord | None = None  # table with a row per test example
    adapter: FileRecord | None = None  # trained tensors, if they were saved
    source_diagnostics: SourceDiagnostics | None = None
    stored_details: CellDetails | None = field(default=None, repr=False)  # None: read from `path` when needed
    path: Path | None = field(default=None, compare=False)  # the file that the result was read from

    @property
    def key(self) -> str:
        """Readable name of the cell."""
        return self.cell.key

    @property
    def is_done(self) -> bool:
        """Whether the cell has finished without an error."""
        return self.error is None

    @property
    def state(self) -> Literal["done", "failed"]:
        """State of the cell, as status and tables name it."""
        return "done" if self.is_done else "failed"

    @property
    def is_target(self) -> bool:
        """Whether the cell is a score of the table or of a dependency, and not a source stage."""
        return self.cell.stage == TARGET_STAGE

    @property
    def test_score(self) -> float | None:
        """Primary metric on the test set, from 0 to 1; None if the cell failed or is a source stage."""
        return self.metrics.test.get(self.task.metric) if self.metrics else None

    @cached_property
    def details(self) -> CellDetails:
        """Identity inputs, training and environment, read from the file of the result when first used.

        Raises `UsageError` if that file has been removed in the meantime.
        """
        if self.stored_details:
            return self.stored_details
        values = read_result_file(self.path) if self.path else None
        if values is None:
            raise UsageError(f"{self.path}: this result has been removed or damaged; run the command again")
        return CellDetails.from_json(values)

    def get_metrics(self) -> Metrics:
        """Return the metrics of a finished cell; raises ValueError for a failed one."""
        if self.metrics is None:
            raise ValueError(f"cell {self.key} failed and has no metrics")
        return self.metrics

    def get_costs(self) -> Costs:
        """Return the costs of a finished cell; raises ValueError for a failed one."""
        if self.costs is None:
            raise ValueError(f"cell {self.key} failed and has no costs")
        return self.costs

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with the state of the cell and its readable name."""
        shallow = replace(self, stored_details=None, path=None)
        values = asdict(shallow) | {"cell": self.cell._asdict(), "key": self.key, "state": self.state}
        values |= {"error": self.error._asdict() if self.error else None}
        details = self.details
        values |= {
            "identity_inputs": details.identity_inputs.to_json(),
            "training": asdict(details.training) if details.training else None,
            "environment": asdict(details.environment) if details.environment else None,
        }
        del values["stored_details"], values["path"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: Path | None = None) -> "CellResult":
        """Create a result from `to_json`, or from the same without the details, which are then read from `path`."""
        metrics = values["metrics"]
        costs = values["costs"]
        diagnostics = values["source_diagnostics"]
        return cls(
            identity=values["identity"],
            cell=Cell(**values["cell"]),
            grid=values["grid"],
            suite=values["suite"],
            times=CellTimes(**values["times"]),
            dependencies=tuple(values["dependencies"]),
            method=MethodRecord(**values["method"]),
            task=TaskRecord(**values["task"]),
            backbone=BackboneRecord(**values["backbone"]),
            error=FailureDescription(**values["error"]) if values["error"] else None,
            metrics=Metrics(**metrics) if metrics else None,
            data={name: DataRecord(**record) for name, record in values["data"].items()},
            costs=Costs(**costs) if costs else None,
            predictions=FileRecord(**values["predictions"]) if values["predictions"] else None,
            adapter=FileRecord(**values["adapter"]) if values["adapter"] else None,
            source_diagnostics=SourceDiagnostics(**diagnostics) if diagnostics else None,
            stored_details=CellDetails.from_json(values) if "identity_inputs" in values else None,
            path=path,
        )
