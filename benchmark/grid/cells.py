"""TODO."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmark.config.profile import FULL

TARGET_STAGE = "target"


class Cell(NamedTuple):
    """One number to produce; with another stage than `target`: something that targets rest on."""

    method: str
    task: str
    shots: int | str  # 0 where nothing trains
    seed: int
    stage: str = TARGET_STAGE

    @property
    def key(self) -> str:
        """What people call it: lora/chnsent/16/0, or mpt.source/sources/full/0."""
        stage = "" if self.stage == TARGET_STAGE else f".{self.stage}"
        return f"{self.method}{stage}/{self.task}/{self.shots}/{self.seed}"


@dataclass(frozen=True)
class PlannedCell:
    """A cell with all that is needed to run it."""

    cell: Cell
    training_tasks: tuple[str, ...]  # the tasks it trains on: its own, or the sources
    options: dict[str, Any]  # of the method
    identity_inputs: dict[str, Any]  # what the identity is made of
    identity: str
    dependencies: tuple[str, ...] = ()  # identities: the stage before, or the parent method on each source
    should_save_adapter: bool = False  # what it learned is kept: others rest on it, or the profile asks for it
    is_in_table: bool = True  # it is a cell of the table, and not only what others rest on

    @property
    def max_train_examples(self) -> int | None:
        """Training examples of each source, where the method asks for so few of them."""
        return None if self.cell.stage == TARGET_STAGE else self.options.get("pool") or None

    @property
    def file_stem(self) -> str:
        """Of its files."""
        return f"{self.cell.key.replace('/', '-').replace(':', '.')}-{self.identity[:10]}"


def get_shots_sort_key(shots: int | str) -> float:
    return float("inf") if shots == FULL else float(shots)
