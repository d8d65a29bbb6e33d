"""Shared multi-task LoRA: train one LoRA on all sources together, then continue on the target.

y = W x + (alpha / r) B A x, where only the text identifies the task. A and B are shared by all sources; on the
target every cell trains its own copy of them, or, with A frozen, of B alone. Initialisation and parameter count are
LoRA's: r (d_in + d_out) for every linear. With `pool` it is the baseline for methods that learn from few examples: the
same examples of every source and the same number of gradient computations.
"""

from dataclasses import dataclass

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup
from methods.core.config import validate_choices
from methods.lora import LoRA
from tasks.core.types import UsageError


class SharedLoRA(LoRA):
    """LoRA whose factors are shared by all sources; each target continues from a copy."""

    name = "shared_lora"
    paper = "the plain multi-task baseline"
    trained_part = "A and B, one for all sources; on the target the parts in `trainable_on_target`"
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "target_lr")

    @dataclass(frozen=True)
    class Config(LoRA.Config):
        pool: int = 0  # training examples of each source, drawn with the seed; 0: all
        trainable_on_target: str = "a b"  # parameters that are trained on the target
        target_lr: float = 1e-4  # half of `lr`, because few-shot training starts from a trained state

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(self.trainable_on_target, ("a", "b"), "method shared_lora: trainable_on_target")
            if self.pool < 0:
                raise UsageError(f"method shared_lora: pool is a number of examples, or 0 for all; found {self.pool}")

    config: Config

    def build(self) -> None:
        super().build()
        for delta in self.deltas.values():
            delta.a.is_shared = delta.b.is_shared = True

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return parameter_name.rpartition(".")[2] in self.config.trainable_on_target.split()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        lr = self.config.target_lr if self.current_stage == TARGET_STAGE else self.config.lr
        return OptimizerGroup(lr, self.config.weight_decay)
