"""Records that the result of a cell consists of (see `cell_result.CellResult`), and the states of cells.

Scores are from 0 to 1, times are seconds, sizes are bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmark.grid.cells import CellIdentity
from benchmark.system.environment import Environment

SCHEMA_VERSION = 2
CELL_STATES = ("planned", "running", "done", "failed", "stale")
DETAIL_FIELDS = ("identity_inputs", "training", "environment")  # long fields, rarely needed: not in the folder's index


class CellStatus(NamedTuple):
    """State of a cell in a results folder (one of CELL_STATES), and the reason for it, empty where there is none."""

    state: str
    reason: str


@dataclass(frozen=True)
class CellTimes:
    """When a cell ran (ISO 8601, UTC) and its wall-clock seconds; of a pack, its share."""

    started: str
    finished: str
    seconds: float


@dataclass(frozen=True)
class MethodRecord:
    """Facts of the method that reports show; names as in `methods.base.Method`."""

    trained_part: str
    paper: str
    uses_gradient_descent: bool


@dataclass(frozen=True)
class TaskRecord:
    """Facts of the task that reports show; names as in `tasks.base.Task`. `metric` is the primary one."""

    role: str
    family: str
    form: str
    metric: str
    licence: str


@dataclass(frozen=True)
class BackboneRecord:
    """Name (of a local folder only its last component) and revision of the backbone."""

    name: str
    revision: str | None


@dataclass(frozen=True)
class Metrics:
    """Scores of a cell, from 0 to 1. A source stage has only dev scores."""

    test: Mapping[str, float]  # metric -> score on the test set
    dev: Mapping[str, float]  # training task -> score of the selected weights on dev; empty without an evaluation
    zero_step: Mapping[str, float]  # as `test`, after the source stage and before target training; empty without one


class CurvePoint(NamedTuple):
    """Value of a curve after an optimizer step."""

    step: int
    value: float


class DevScore(NamedTuple):
    """Evaluation on dev: score from 0 to 1, and mean negative log-likelihood of the gold answers in nats."""

    step: int
    score: float
    nll: float


@dataclass(frozen=True)
class TrainingRecord:
    """Training of a cell. Curves are downsampled."""

    num_steps: int  # planned steps
    num_gradients: int  # gradients computed, each of one batch
    best_step: int  # step whose weights were selected on dev
    stopped_step: int  # step of an early stop; 0: none
    loss: tuple[CurvePoint, ...]
    dev: tuple[DevScore, ...]
    diagnostics: Mapping[str, tuple[CurvePoint, ...]]  # curves that the method reports, by name

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainingRecord":
        """Create a record from the JSON of its fields."""
        curves = {
            "loss": tuple(CurvePoint(*point) for point in values["loss"]),
            "dev": tuple(DevScore(*point) for point in values["dev"]),
            "diagnostics": {
                name: tuple(CurvePoint(*point) for point in curve) for name, curve in values["diagnostics"].items()
            },
        }
        return cls(**{**values, **curves})


@dataclass(frozen=True)
class DataRecord:
    """Examples of a training task that a cell used."""

    splits: Mapping[str, int]  # split -> number of examples
    offered: Mapping[str, int]  # split -> number of examples before the shots were drawn
    truncated: Mapping[str, int]  # split -> number of examples whose prompt was truncated
    short: Mapping[str, Mapping[str, int]]  # split -> label -> examples, of labels with fewer than the shots
    origin: str  # sample, local, hub or own files
    digests: Mapping[str, str]  # split -> hash of its examples
    leaked: Mapping[str, int]  # source task -> number of test examples whose text it trains on, if above 0


@dataclass(frozen=True)
class Costs:
    """Costs of a cell. Times and tokens of a pack are divided equally among its cells."""

    trained_parameters: int
    adapter_bytes: int
    seconds_by_phase: Mapping[str, float]
    peak_bytes: int  # of the whole pack
    peak_measured_on: str  # device or process
    pack_size: int
    num_micro_batches: int  # forward passes per step: more than 1 if a whole batch exceeded the memory
    num_tokens: int  # training tokens without padding
    tokens_per_second: float | None
    padded_share: float | None  # share of padding in the training tokens
    num_devices: int = 1
    unpacked_reason: str | None = None  # error of the pack after which the cell ran alone


@dataclass(frozen=True)
class FileRecord:
    """File that belongs to a result; its path is relative to the results folder."""

    path: str
    sha256: str
    num_bytes: int
    num_rows: int | None = None  # of a table


@dataclass(frozen=True)
class SourceDiagnostics:
    """Statistics of a source stage by title: a number per layer, or a matrix over `tasks`."""

    tasks: tuple[str, ...]
    statistics: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class CellDetails:
    """The long fields of a result. Cells whose process died have no environment, failed cells no training."""

    identity_inputs: CellIdentity
    training: TrainingRecord | None
    environment: Environment | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CellDetails":
        """Create the details from the JSON of a result."""
        return cls(
            CellIdentity.from_json(values["identity_inputs"]),
            TrainingRecord.from_json(values["training"]) if values["training"] else None,
            Environment(**values["environment"]) if values["environment"] else None,
        )
