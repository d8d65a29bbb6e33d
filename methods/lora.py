"""LoRA: y = W x + (alpha / r) B A x, with W frozen (Hu et al. 2021, arXiv:2106.09685, eq. 3).

A [r, d_in] is initialised Kaiming uniform, as in peft, and B [d_out, r] to 0. Trained: r (d_in + d_out) numbers for
every adapted linear. The scale alpha / sqrt(r) is rsLoRA (arXiv:2312.03732). Rank, alpha, linears and learning rate are
our choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Method, SlotContext, SlotParameter, Stage, create_generator
from methods.core.backbone_files import DECODER_SITES
from methods.core.config import validate_choices
from tasks.core.types import EncodedExample, UsageError


class LowRankDelta(nn.Module):
    """Low-rank update that adds scale * B A x to a linear's output. B is initialised to 0: the initial update is 0."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float, slot_context: SlotContext) -> None:
        super().__init__()
        self.weight_shape = linear.weight.shape  # [out, in]
        self.rank = rank
        self.scale = scale
        self.dropout = dropout
        self.slot_context = slot_context
        self.a = SlotParameter(slot_context)  # A [r, in] of each slot
        self.b = SlotParameter(slot_context)  # B [out, r] of each slot

    def add_slot(self, generator: torch.Generator) -> None:
        """Add one slot, with A and B at their initial values."""
        self.a.add_slot(
            nn.init.kaiming_uniform_(torch.empty(self.rank, self.weight_shape[1]), a=5**0.5, generator=generator)
        )
        self.b.add_slot(torch.zeros(self.weight_shape[0], self.rank))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the update to the output y of the linear: x [b, s, in], y [b, s, out] -> [b, s, out]."""
        return torch.add(y, self.apply_dropout(x) @ self.a().mT @ self.b().mT, alpha=self.scale)

    def apply_dropout(self, x: Tensor) -> Tensor:
        """Apply dropout to x, drawn from the dropout generator of the slot context."""
        if not (self.dropout and self.training):
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=self.slot_context.dropout_generator)
        return x * keep / (1 - self.dropout)

    def get_factors(self, slot: int) -> tuple[Tensor, Tensor]:
        """A [r, in] and B [out, r] of a plain LoRA of the same scale that is equivalent to this slot."""
        return self.a.for_slot(slot), self.b.for_slot(slot)

    def get_delta_weight(self, slot: int) -> Tensor:
        """The update of the linear's weight for this slot [out, in]."""
        a, b = self.get_factors(slot)
        return self.scale * b @ a


class LoRA(Method):
    """Low-rank adaptation of frozen linears, one pair of factors per linear and slot."""

    name = "lora"
    paper = "Hu et al. 2021, arXiv:2106.09685"
    trained_part = "A and B at each linear"
    is_mergeable = True

    @dataclass(frozen=True)
    class Config(Method.Config):
        rank: int = 8
        alpha: float = 16.0
        sites: str = "q k v o"
        rslora: bool = False
        dropout: float = 0.0  # above 0 a cell cannot be packed: its noise would depend on the lengths of other cells

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.rank < 1 or not 0 <= self.dropout < 1:
                raise UsageError(f"LoRA: rank >= 1 and 0 <= dropout < 1, found {self.rank}, {self.dropout}")
            validate_choices(self.sites, tuple(DECODER_SITES), "LoRA: sites")

    config: Config

    def build(self) -> None:
        c = self.config
        scale = c.alpha / (c.rank**0.5 if c.rslora else c.rank)
        arguments = (c.rank, scale, c.dropout, self.slot_context)
        self.deltas = self.backbone.attach(c.sites, lambda linear: self.build_delta(linear, *arguments))

    def build_delta(
        self, linear: nn.Linear, rank: int, scale: float, dropout: float, slot_context: SlotContext
    ) -> LowRankDelta:
        """Create the module that adapts one linear; subclasses override it."""
        return LowRankDelta(linear, rank, scale, dropout, slot_context)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        for delta in self.deltas.values():
            delta.add_slot(generator)

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        if self.config.dropout and len(seeds) > 1 and stage.batch_mode == "packed":
            raise UsageError(f"method {self.name}: with dropout above 0 cells cannot be packed; set the pack size to 1")
        super().begin_stage(stage, seeds, train_examples)
        self.slot_context.dropout_generator = torch.Generator(self.backbone.device).manual_seed(
            create_generator(seeds[0], stage.name, "dropout").initial_seed()
        )

    @torch.no_grad()
    def merged_weights(self, slot: int = 0) -> dict[str, Tensor]:
        linears = self.backbone.get_linears(self.config.sites)
        return {
            f"{self.backbone.get_module_path(key)}.weight": linears[key].weight
            + delta.get_delta_weight(slot).to(linears[key].weight.dtype)
            for key, delta in self.deltas.items()
        }

    @torch.no_grad()
    def peft_format(self, slot: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        if not self.is_mergeable:
            return None
        c = self.config
        tensors: dict[str, Tensor] = {}
        for key, delta in self.deltas.items():
            path = f"base_model.model.{self.backbone.get_module_path(key)}"
            tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = delta.get_factors(slot)
        scale = {"r": c.rank, "lora_alpha": c.alpha, "use_rslora": c.rslora, "lora_dropout": c.dropout}
        sites = [self.backbone.site_modules[site] for site in c.sites.split()]
        return {"peft_type": "LORA", **scale, "target_modules": sites, "bias": "none"}, tensors
