"""Cells of a grid, and cells as they are planned: with options, dependencies and identity."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmark.config.profile import FULL

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


@dataclass(frozen=True)
class PlannedCell:
    """A cell with everything that is needed to run it."""

    cell: Cell
    training_tasks: tuple[str, ...]  # tasks to train on: that of the cell, or the source tasks
    options: dict[str, Any]  # all options of the method
    identity_inputs: dict[str, Any]  # everything that can change the score
    identity: str  # hash of `identity_inputs`
    dependencies: tuple[str, ...] = ()  # identities of the previous stage, or of another method's cell on each source
    should_save_adapter: bool = False  # because other cells depend on it, or the profile has `keep_adapters`
    is_in_table: bool = True  # False: planned only because other cells depend on it

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
