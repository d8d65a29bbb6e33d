"""MTL-LoRA: A and several B for all tasks, a matrix and mixing weights for each (Yang et al. 2024, arXiv:2410.09437).

y = W x + (alpha / r) [sum_i softmax(w_t / tau)_i B_i] Lambda_t A x

A [r, d_in] and B_i [d_out, r] for n up-projections are one for all sources; Lambda_t [r, r] and w_t [n] are task t's.
Trained for T tasks: r d_in + n r d_out + T (r^2 + n) numbers for every linear. The form is that of the authors' code.
A target starts from the means of Lambda and w over the sources and, unless `trainable_on_target` says more, learns only these two.

A starts Kaiming uniform, B at 0, so at first it changes nothing; Lambda at I, w uniform in +-1/sqrt(n). tau is small so
that the tasks begin with almost one B each: with equal w the B_i would stay equal for ever. Defaults are the authors',
but for dropout (0.05); what a target does is our choice.
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
    """Adds scale * [sum_i softmax(w_t / tau)_i B_i] Lambda_t A x to a linear's output."""

    def __init__(self, linear: nn.Linear, num_up_projections: int, tau: float, *args: Any) -> None:
        super().__init__(linear, *args)
        self.num_up_projections, self.tau = num_up_projections, tau
        self.a, self.b = (
            SlotParameter(self.slot_context, is_shared=True),
            SlotParameter(self.slot_context, is_shared=True),
        )  # A [r, in], B [n, out, r]
        self.inner, self.mix = (
            SlotParameter(self.slot_context),
            SlotParameter(self.slot_context),
        )  # Lambda [r, r] and w [n] of each slot

    def add_slot(self, draw: torch.Generator) -> None:
        task, bound = len(self.mix.tensors), self.num_up_projections**-0.5
        self.a.add_slot(
            nn.init.kaiming_uniform_(torch.empty(self.rank, self.weight_shape[1]), a=5**0.5, generator=draw)
        )
        self.b.add_slot(torch.zeros(self.num_up_projections, self.weight_shape[0], self.rank))
        self.inner.add_slot(torch.eye(self.rank))
        # row `task` of one matrix [T, n]: sources that share a seed still have weights of their own
        self.mix.add_slot((2 * torch.rand(task + 1, self.num_up_projections, generator=draw)[task] - 1) * bound)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [b, s, in], y [b, s, out] -> [b, s, out]"""
        low = self.apply_dropout(x) @ self.a().mT @ self.inner().mT  # [b, s, r]
        return torch.add(y, low @ mix_up_projections(self.mix() / self.tau, self.b()).mT, alpha=self.scale)

    def get_factors(self, slot: int) -> tuple[Tensor, Tensor]:
        return self.inner.for_slot(slot) @ self.a.for_slot(slot), mix_up_projections(
            self.mix.for_slot(slot) / self.tau, self.b.for_slot(slot)
        )


def mix_up_projections(logits: Tensor, b: Tensor) -> Tensor:
    """sum_i softmax(logits)_i B_i: logits [..., n], B [..., n, out, r] -> [..., out, r]"""
    return torch.einsum("...n,...nor->...or", logits.softmax(-1), b)


class MTLLoRA(LoRA):
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
        trainable_on_target: str = "inner mix"  # what learns on the target; on full data all: "a b inner mix"
        target_lr: float = 3e-4
        shared_lr_multiplier: float = 0.1  # of target_lr, for A and B where they learn on the target

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(self.trainable_on_target, PARAMETER_NAMES, "method mtl_lora: target")
            if self.up_projections < 1 or self.tau <= 0:
                raise UsageError(f"method mtl_lora: ups >= 1 and tau > 0, found {self.up_projections}, {self.tau}")

    config: Config

    def build_delta(self, linear: nn.Linear, *args: Any) -> TaskMixDelta:
        return TaskMixDelta(linear, self.config.up_projections, self.config.tau, *args)

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return parameter_name.rpartition(".")[2] in self.config.trainable_on_target.split()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        c, bank = self.config, parameter_name.split(".")[-3]
        lr = (
            c.lr
            if self.current_stage != TARGET_STAGE
            else c.target_lr * (c.shared_lr_multiplier if bank in ("a", "b") else 1)
        )
        return OptimizerGroup(lr, 0.0 if bank == "mix" else c.weight_decay)
