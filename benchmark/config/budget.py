"""How long a cell may train. Light on purpose: profiles are checked and priced without importing torch."""

from dataclasses import dataclass
from math import ceil

from tasks.core.types import UsageError


@dataclass(frozen=True)
class Budget:
    """The same for every method. Steps: `epochs` over the examples, at least `min_steps`, at most `max_steps`."""

    batch_size: int = 8
    epochs: int = 20
    min_steps: int = 0
    max_steps: int = 1000
    evaluations: int = 4  # dev evaluations over the run; 0: none, the last weights are kept
    patience: int = 3  # stop after so many evaluations without a better one; 0: never

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.epochs < 1 or self.max_steps < 1 or self.evaluations < 0 or self.patience < 0:
            raise UsageError(f"a budget's numbers are 1 or more (evaluations and patience 0 or more), found {self}")

    def compute_num_steps(self, num_examples: int, batch_size: int | None = None) -> int:
        """Steps for this many training examples."""
        return min(
            self.max_steps, max(self.min_steps, self.epochs * ceil(num_examples / (batch_size or self.batch_size)))
        )
