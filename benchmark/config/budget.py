"""Training budget of a cell. Imports no torch, so that profiles are validated and costs estimated quickly."""

from dataclasses import dataclass
from math import ceil

from tasks.core.types import UsageError


@dataclass(frozen=True)
class Budget:
    """Training budget, the same for every method: `epochs` over the examples, within `min_steps` and `max_steps`.

    Raises `UsageError` for values out of range.
    """

    batch_size: int = 8
    epochs: int = 20
    min_steps: int = 0
    max_steps: int = 1000
    evaluations: int = 4  # evaluations on dev over the run; 0: none, the last weights are used
    patience: int = 3  # stop after this many evaluations without improvement; 0: never stop early

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.epochs < 1 or self.max_steps < 1 or self.evaluations < 0 or self.patience < 0:
            raise UsageError(f"budget values must be 1 or more (evaluations and patience 0 or more), found {self}")

    def compute_num_steps(self, num_examples: int, batch_size: int | None = None) -> int:
        """Number of optimizer steps for this many training examples; `batch_size` overrides that of the budget."""
        steps_per_epoch = ceil(num_examples / (batch_size or self.batch_size))
        return min(self.max_steps, max(self.min_steps, self.epochs * steps_per_epoch))
