"""DoRA: LoRA that learns magnitude and direction of a weight separately (Liu et al. 2024, arXiv:2402.09353, eq. 5).

W' = m (W + s B A) / ||W + s B A||_c

W [d_out, d_in] is frozen, s = alpha / r, and m [d_out] holds one magnitude for every output: the norm is that of each
row of W, which is a column in the paper's notation. In the backward pass the norm is a constant (section 4.3; the same
in peft). A and B are initialised as in LoRA and m to the norms of W, so the initial update is 0. Trained:
r (d_in + d_out) + d_out numbers for every adapted linear.

The norm is computed from W A^T and A A^T, without the matrix W + s B A, so packed cells need no copy of W. m has no
weight decay, which would pull it to 0 instead of its initial value (our choice). With dropout, the change of the
magnitude applies to the input after dropout, as in peft. Rank, alpha, linears and learning rate are those of `lora`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from methods.base import OptimizerGroup, SlotParameter
from methods.lora import LoRA, LowRankDelta


class MagnitudeDelta(LowRankDelta):
    """Update that turns the output W x + bias of a linear into W' x + bias."""

    def __init__(self, linear: nn.Linear, *args: Any) -> None:
        super().__init__(linear, *args)
        self.linears = (linear,)  # in a tuple, so that it is not a submodule: its weights are not the method's
        self.squared_norms = gather_weight(linear).float().square().sum(-1)  # ||W||_c^2 [out]
        self.magnitude = SlotParameter(self.slot_context)  # m [out] of each slot

    def add_slot(self, generator: torch.Generator) -> None:
        super().add_slot(generator)
        self.magnitude.add_slot(self.squared_norms.sqrt())

    @torch.no_grad()
    def compute_norms(self, a: Tensor, b: Tensor) -> Tensor:
        """||W + s B A||_c in fp32: A [..., r, in], B [..., out, r] -> [..., out]."""
        with torch.autocast(a.device.type, enabled=False):
            cross_products = gather_weight(self.linears[0]).float() @ a.mT  # W A^T [..., out, r]
            change = ((2 * self.scale * cross_products + self.scale**2 * b @ (a @ a.mT)) * b).sum(-1)
        return (self.squared_norms + change).clamp(min=0).sqrt()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the update to the output y of the linear: x [b, s, in], y [b, s, out] -> [b, s, out]."""
        (linear,) = self.linears
        norms = self.compute_norms(self.a.stack_present_slots(), self.b.stack_present_slots())  # [k or 1, out]
        factor = (self.magnitude() / self.slot_context.gather_rows(norms)).unsqueeze(-2)  # fp32 [b or 1, 1, out]
        x_dropped = self.apply_dropout(x)
        low_rank = x_dropped @ self.a().mT @ self.b().mT
        if x_dropped is not x:
            base = F.linear(x_dropped, linear.weight)
        elif linear.bias is not None:
            base = y - linear.bias
        else:
            base = y
        # factor - 1 is rounded after the subtraction: near 1 bf16 has steps of 1/128
        return y + (factor - 1).to(y.dtype) * base + (self.scale * factor).to(low_rank.dtype) * low_rank

    def get_delta_weight(self, slot: int) -> Tensor:
        """W' - W for this slot [out, in]."""
        a, b = self.get_factors(slot)
        factor = (self.magnitude.for_slot(slot) / self.compute_norms(a, b)).unsqueeze(-1)
        return (factor - 1) * gather_weight(self.linears[0]).float() + self.scale * factor * (b @ a)


def gather_weight(linear: nn.Linear) -> Tensor:
    """Weight [out, in] of a linear, complete also where FSDP has sharded it."""
    weight = linear.weight.detach()
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


class DoRA(LoRA):
    """LoRA with a trained magnitude for every output of an adapted linear."""

    name = "dora"
    paper = "Liu et al. 2024, arXiv:2402.09353"
    trained_part = "A, B and the magnitudes m at each linear"
    has_exact_gradient = False  # the norm is a constant in the backward pass

    def build_delta(self, linear: nn.Linear, *args: Any) -> MagnitudeDelta:
        return MagnitudeDelta(linear, *args)

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        group = super().optimizer_group(parameter_name)
        return group._replace(weight_decay=0.0) if parameter_name.split(".")[-3] == "magnitude" else group

    @torch.no_grad()
    def peft_format(self, slot: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        lora_format = super().peft_format(slot)
        assert lora_format is not None  # mergeable, so LoRA has a format
        config, tensors = lora_format
        for key, delta in self.deltas.items():
            path = f"base_model.model.{self.backbone.get_module_path(key)}"
            tensors[f"{path}.lora_magnitude_vector"] = delta.magnitude.for_slot(slot)
        return config | {"use_dora": True}, tensors
