"""MTL-LoRA: shared A and several B, a matrix and mixing weights for each task (Yang et al. 2024, arXiv:2410.09437).

y = W x + (alpha / r) [sum_i softmax(w_t / tau)_i B_i] Lambda_t A x

A [r, d_in] and B_i [d_out, r] for n up-projections are shared by all sources; Lambda_t [r, r] and w_t [n] belong to
task t. Trained for T tasks: r d_in + n r d_out + T (r^2 + n) numbers for every linear. The form is that of the authors'
code. A target starts from the means of Lambda and w over the sources and by default trains only these two
(`trainable_on_target`).

A is initialised Kaiming uniform, B to 0, so the initial update is 0; Lambda to I, w uniform in +-1/sqrt(n). tau is
small so that each task initially uses almost a single B_i: with equal w the B_i would stay equal. Defaults are the
authors' except for dropout (theirs: 0.05); the training on the target is our choice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup, SlotParameter
from methods.core.config import validate_choices
from methods.lora import LoRA, LowRankDelta
from tasks.core.types import UsageError

PARAMETER_NAMES = ("a", "b", "inner", "mix")


class TaskMixDelta(LowRankDelta):
    """Update that adds scale * [sum_i softmax(w_t / tau)_i B_i] Lambda_t A x to a linear's output."""

    def __init__(self, linear: nn.Linear, num_up_projections: int, tau: float, *args: Any) -> None:
        super().__init__(linear, *args)
        self.num_up_projections = num_up_projections
        self.tau = tau
        self.a = SlotParameter(self.slot_context, is_shared=True)  # A [r, in]
        self.b = SlotParameter(self.slot_context, is_shared=True)  # B [n, out, r]
        self.inner = SlotParameter(self.slot_context)  # Lambda [r, r] of each slot
        self.mix = SlotParameter(self.slot_context)  # w [n] of each slot

    def add_slot(self, draw: torch.Generator) -> None:
        task = len(self.mix.tensors)
        bound = self.num_up_projections**-0.5
        self.a.add_slot(
            nn.init.kaiming_uniform_(torch.empty(self.rank, self.weight_shape[1]), a=5**0.5, generator=draw)
        )
        self.b.add_slot(torch.zeros(self.num_up_projections, self.weight_shape[0], self.rank))
        self.inner.add_slot(torch.eye(self.rank))
        # row `task` of one matrix [T, n], so that sources with the same seed differ
        self.mix.add_slot((2 * torch.rand(task + 1, self.num_up_projections, generator=draw)[task] - 1) * bound)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the update to the output y of the linear: x [b, s, in], y [b, s, out] -> [b, s, out]."""
        projected = self.apply_dropout(x) @ self.a().mT @ self.inner().mT  # [b, s, r]
        return torch.add(y, projected @ mix_up_projections(self.mix() / self.tau, self.b()).mT, alpha=self.scale)

    def get_factors(self, slot: int) -> tuple[Tensor, Tensor]:
        a = self.inner.for_slot(slot) @ self.a.for_slot(slot)
        return a, mix_up_projections(self.mix.for_slot(slot) / self.tau, self.b.for_slot(slot))


def mix_up_projections(logits: Tensor, b: Tensor) -> Tensor:
    """sum_i softmax(logits)_i B_i: logits [..., n], B [..., n, out, r] -> [..., out, r]"""
    return torch.einsum("...n,...nor->...or", logits.softmax(-1), b)


class MTLLoRA(LoRA):
    """LoRA with shared factors and, for each task, an r x r matrix and weights of the up-projections."""

    name = "mtl_lora"
    paper = "Yang et al. 2024, arXiv:2410.09437"
    trained_part = (
        "A and the B_i, one for all sources, Lambda and w of each; on the target the parts in `trainable_on_target`"
    )
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "target_lr", "shared_lr_multiplier")

    @dataclass(frozen=True)
    class Config(LoRA.Config):
        lr: float = 3e-4
        up_projections: int = 3
        tau: float = 0.1
        trainable_on_target: str = (
            "inner mix"  # parameters that are trained on the target; on full data all: "a b inner mix"
        )
        target_lr: float = 3e-4
        shared_lr_multiplier: float = 0.1  # times target_lr is the rate of A and B where they are trained on the target

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(self.trainable_on_target, PARAMETER_NAMES, "method mtl_lora: trainable_on_target")
            if self.up_projections < 1 or self.tau <= 0:
                raise UsageError(
                    f"method mtl_lora: up_projections >= 1 and tau > 0, found {self.up_projections}, {self.tau}"
                )

    config: Config

    def build_delta(self, linear: nn.Linear, *args: Any) -> TaskMixDelta:
        return TaskMixDelta(linear, self.config.up_projections, self.config.tau, *args)

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return parameter_name.rpartition(".")[2] in self.config.trainable_on_target.split()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        c = self.config
        short_name = parameter_name.split(".")[-3]
        lr = c.lr
        if self.current_stage == TARGET_STAGE:
            lr = c.target_lr * (c.shared_lr_multiplier if short_name in ("a", "b") else 1)
        return OptimizerGroup(lr, 0.0 if short_name == "mix" else c.weight_decay)
