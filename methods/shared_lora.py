"""Shared multi-task LoRA: one LoRA learned on all sources together, then continued on the target.

y = W x + (alpha / r) B A x, and nothing tells the tasks apart but their text. A and B are one for all sources; on the
target every cell continues from its own copy of them, or, with A frozen, only B does. Start and count as LoRA's:
r (d_in + d_out) for every linear. With `pool` it is what a method that learns from few examples has to beat: the same
examples of every source, and as many gradients.
"""

from dataclasses import dataclass

from methods.base import SOURCE, TARGET, Rate
from methods.config import some_of
from methods.lora import LoRA
from tasks.example import UsageError


class SharedLoRA(LoRA):
    name = "shared_lora"
    paper = "the plain multi-task baseline"
    what = "A and B, one for all sources; on the target the parts in `trainable_on_target`"
    stages = (SOURCE, TARGET)
    late = ("trainable_on_target", "target_lr")

    @dataclass(frozen=True)
    class Config(LoRA.Config):
        pool: int = 0  # examples of each source that are learned from, drawn by the seed; 0: all
        trainable_on_target: str = "a b"  # what learns on the target
        target_lr: float = 1e-4  # few-shot: from a good start, half of the sources' rate

        def __post_init__(self) -> None:
            super().__post_init__()
            some_of(self.trainable_on_target, ("a", "b"), "method shared_lora: target")
            if self.pool < 0:
                raise UsageError(f"method shared_lora: pool is a number of examples, or 0 for all; found {self.pool}")

    config: Config

    def build(self) -> None:
        super().build()
        for delta in self.deltas.values():
            delta.a.shared = delta.b.shared = True

    def learns(self, bank: str) -> bool:
        return bank.rpartition(".")[2] in self.config.trainable_on_target.split()

    def rate(self, name: str) -> Rate:
        return Rate(self.config.target_lr if self.stage == TARGET else self.config.lr, self.config.weight_decay)
