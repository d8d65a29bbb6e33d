"""Cells of a grid, and cells as they are planned: with options, dependencies and identity."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from benchmark.config.budget import Budget
from benchmark.config.profile import FULL
from benchmark.system.hashing import hash_json

TARGET_STAGE = "target"


class Cell(NamedTuple):
    """One score of the grid or, if `stage` is not `target`, a source stage that target cells depend on."""

    method: str  # a method or a variant, as `lora:rank-2`
    task: str  # of a source stage: the name of the group of source tasks
    shots: int | str  # training examples per label, or "full"; 0 where the seed changes nothing
    seed: int
    stage: str = TARGET_STAGE

    @property
    def key(self) -> str:
        """Readable name: method[.stage]/task/shots/seed, as lora/chnsent/16/0 or mpt.source/sources/full/0."""
        stage = "" if self.stage == TARGET_STAGE else f".{self.stage}"
        return f"{self.method}{stage}/{self.task}/{self.shots}/{self.seed}"


class StreamSeeds(NamedTuple):
    """Seeds of the random streams of a cell."""

    split: int  # few-shot sample
    start: int  # initial weights
    order: int  # order of the training examples


@dataclass(frozen=True)
class CellSettings:
    """Settings of the profile that can change the score of any cell; names as in `Profile` and `BackboneConfig`."""

    limit: Mapping[str, int]
    max_length: int
    normalise: str
    dtype: str
    attention: str
    checkpointing: bool


@dataclass(frozen=True)
class CellIdentity:
    """Everything that can change the score of a cell. Its hash is the identity of the cell.

    `method_code`, `task_code`, `training_code`, `records` and `backbone` are hashes of contents.
    """

    cell: Cell
    training_tasks: tuple[str, ...]  # tasks to train on: that of the cell, or the source tasks
    options: Mapping[str, Any]  # all options of the method
    budget: Budget | None  # None: the method is not trained
    settings: CellSettings
    seeds: StreamSeeds
    method_code: str
    task_code: str
    training_code: str  # code that trains and scores a cell, whatever its method and tasks
    records: str  # raw data of the training tasks
    backbone: str
    libraries: Mapping[str, str]  # package -> version
    dependencies: tuple[str, ...] = ()  # identities of the previous stage, or of another method's cell on each source

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        values = {
            "cell": self.cell._asdict(),
            "budget": asdict(self.budget) if self.budget else None,
            "settings": vars(self.settings),
            "seeds": self.seeds._asdict(),
            "training_tasks": list(self.training_tasks),
            "dependencies": list(self.dependencies),
        }
        return vars(self) | values

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "CellIdentity":
        """Create an identity from `to_json`; raises TypeError or KeyError for other fields."""
        values = {
            "cell": Cell(**fields["cell"]),
            "budget": Budget(**fields["budget"]) if fields["budget"] else None,
            "settings": CellSettings(**fields["settings"]),
            "seeds": StreamSeeds(**fields["seeds"]),
            "training_tasks": tuple(fields["training_tasks"]),
            "dependencies": tuple(fields["dependencies"]),
        }
        return cls(**{**fields, **values})

    def compute_hash(self) -> str:
        """Return the sha256 of all fields."""
        return hash_json(self.to_json())


@dataclass(frozen=True)
class PlannedCell:
    """A cell with everything that is needed to run it."""

    inputs: CellIdentity
    identity: str  # hash of `inputs`
    should_save_adapter: bool = False  # because other cells depend on it, or the profile has `keep_adapters`
    is_in_table: bool = True  # False: planned only because other cells depend on it

    @property
    def cell(self) -> Cell:
        """Method, task, shots, seed and stage."""
        return self.inputs.cell

    @property
    def training_tasks(self) -> tuple[str, ...]:
        """Tasks to train on: that of the cell, or the source tasks."""
        return self.inputs.training_tasks

    @property
    def options(self) -> Mapping[str, Any]:
        """All options of the method."""
        return self.inputs.options

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Identities of the cells whose trained state this one needs."""
        return self.inputs.dependencies

    @property
    def budget(self) -> Budget:
        """Training budget; of an untrained method the default, of which only the batch size is used."""
        return self.inputs.budget or Budget()

    @property
    def max_train_examples(self) -> int | None:
        """Maximum number of training examples per source task, the method's option `pool`; None: no maximum."""
        return None if self.cell.stage == TARGET_STAGE else self.options.get("pool") or None

    @property
    def file_stem(self) -> str:
        """File stem used for the cell's result, predictions and lock."""
        return f"{self.cell.key.replace('/', '-').replace(':', '.')}-{self.identity[:10]}"


def get_shots_sort_key(shots: int | str) -> float:
    """Sort key that puts full data after every number of shots."""
    return float("inf") if shots == FULL else float(shots)
