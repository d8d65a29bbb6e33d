"""HydraLoRA: one A, several B, and a router that weights them for each token (Tian et al. 2024, arXiv:2404.19245).

y = W x + (alpha / r) sum_i w_i(x) B_i A x,   w(x) = softmax(R x)

A [r, d_in], B_i [d_out, r] for n heads, R [n, d_in], all shared by all sources: the weights depend only on the text.
On the target every cell trains its own copy. Trained: r d_in + n r d_out + n d_in numbers for every linear. The form
is that of the authors' code.

A and R are initialised Kaiming uniform, B to 0, so the initial update is 0. With R = 0 the heads would stay equal.
Dropout is drawn once (the authors' code draws it for every head) and not applied to the router's input. Rank, alpha and
linears are those of `lora`, for comparability, and n = 3 (the authors': rank 4, alpha 32, the MLP's linears, n = 4).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import SOURCE_STAGE, TARGET_STAGE, Method, OptimizerGroup, SlotParameter
from methods.core.config import validate_choices
from methods.lora import LoRA, LowRankDelta
from tasks.core.types import UsageError


class MultiHeadDelta(LowRankDelta):
    """Update that adds scale * sum_i w_i(x) B_i A x to a linear's output."""

    def __init__(self, linear: nn.Linear, num_heads: int, *args: Any) -> None:
        super().__init__(linear, *args)
        self.num_heads = num_heads
        self.a = SlotParameter(self.slot_context, is_shared=True)  # A [r, in]
        self.b = SlotParameter(self.slot_context, is_shared=True)  # B [n, out, r]
        self.router = SlotParameter(self.slot_context, is_shared=True)  # R [n, in]

    def add_slot(self, draw: torch.Generator) -> None:
        out, width = self.weight_shape
        self.a.add_slot(nn.init.kaiming_uniform_(torch.empty(self.rank, width), a=5**0.5, generator=draw))
        self.b.add_slot(torch.zeros(self.num_heads, out, self.rank))
        self.router.add_slot(nn.init.kaiming_uniform_(torch.empty(self.num_heads, width), a=5**0.5, generator=draw))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the update to the output y of the linear: x [b, s, in], y [b, s, out] -> [b, s, out]."""
        weights = (x @ self.router().mT).float().softmax(-1)  # [b, s, n]
        projected = self.apply_dropout(x) @ self.a().mT  # [b, s, r]
        weighted = (weights.to(projected.dtype)[..., None] * projected[..., None, :]).flatten(-2)  # [b, s, n r]
        return torch.add(y, weighted @ self.b().mT.flatten(-3, -2), alpha=self.scale)  # the B_i^T stacked: [n r, out]


class HydraLoRA(LoRA):
    """LoRA with several up-projections, mixed for each token by a router."""

    name = "hydra_lora"
    paper = "Tian et al. 2024, arXiv:2404.19245"
    trained_part = "A, the B_i and the router, one for all sources; on the target the parts in `trainable_on_target`"
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "target_lr")
    is_mergeable = False  # the weights depend on the token

    @dataclass(frozen=True)
    class Config(LoRA.Config):
        heads: int = 3
        trainable_on_target: str = (
            "a b router"  # parameters that are trained on the target; "router" alone is the smallest set
        )
        target_lr: float = 1e-4

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(self.trainable_on_target, ("a", "b", "router"), "method hydra_lora: trainable_on_target")
            if self.heads < 1:
                raise UsageError(f"method hydra_lora: heads is at least 1, found {self.heads}")

    config: Config

    def build_delta(self, linear: nn.Linear, *args: Any) -> MultiHeadDelta:
        return MultiHeadDelta(linear, self.config.heads, *args)

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return parameter_name.rpartition(".")[2] in self.config.trainable_on_target.split()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        lr = self.config.target_lr if self.current_stage == TARGET_STAGE else self.config.lr
        return OptimizerGroup(lr, self.config.weight_decay)

    def merged_weights(self, slot: int = 0) -> dict[str, Tensor]:
        return Method.merged_weights(self, slot)  # raises UsageError
