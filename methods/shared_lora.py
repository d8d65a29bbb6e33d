"""Shared multi-task LoRA: one LoRA learned on all sources together, then continued on the target.

y = W x + (alpha / r) B A x, and nothing tells the tasks apart but their text. A and B are one for all sources; on the
target every cell continues from its own copy of them, or, with A frozen, only B does. Start and count as LoRA's:
r (d_in + d_out) for every linear. With `pool` it is what a method that learns from few examples has to beat: the same
examples of every source, and as many gradients.
"""

from dataclasses import dataclass

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup
from methods.core.config import validate_choices
from methods.lora import LoRA
from tasks.core.types import UsageError


class SharedLoRA(LoRA):
    name = "shared_lora"
    paper = "the plain multi-task baseline"
    trained_part = "A and B, one for all sources; on the target the parts in `trainable_on_target`"
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "target_lr")

    @dataclass(frozen=True)
    class Config(LoRA.Config):
        pool: int = 0  # examples of each source that are learned from, drawn by the seed; 0: all
        trainable_on_target: str = "a b"  # what learns on the target
        target_lr: float = 1e-4  # few-shot: from a good start, half of the sources' rate

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(self.trainable_on_target, ("a", "b"), "method shared_lora: target")
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
        return OptimizerGroup(
            self.config.target_lr if self.current_stage == TARGET_STAGE else self.config.lr, self.config.weight_decay
        )
