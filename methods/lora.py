"""LoRA: y = W x + (alpha / r) B A x, with W frozen (Hu et al. 2021, arXiv:2106.09685, eq. 3).

A starts Kaiming uniform, as in peft, and B at 0. Trained: r (d_in + d_out) numbers for every linear it is put on. The
scale alpha / sqrt(r) is rsLoRA (arXiv:2312.03732). Rank, alpha, linears and rate are our choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Bank, Method, Rows, Stage, stream
from methods.config import some_of
from methods.files import DECODER
from tasks.example import Encoded, UsageError


class LowRankDelta(nn.Module):
    """Adds scale * B A x to a linear's output. B starts at 0, so at first it changes nothing."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float, slot_context: Rows) -> None:
        super().__init__()
        self.weight_shape, self.rank, self.scale, self.dropout, self.slot_context = (
            linear.weight.shape,
            rank,
            scale,
            dropout,
            slot_context,
        )
        self.a, self.b = Bank(slot_context), Bank(slot_context)  # A [r, in] and B [out, r] of each slot

    def add_slot(self, generator: torch.Generator) -> None:
        """Add one slot."""
        self.a.add(
            nn.init.kaiming_uniform_(torch.empty(self.rank, self.weight_shape[1]), a=5**0.5, generator=generator)
        )
        self.b.add(torch.zeros(self.weight_shape[0], self.rank))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [b, s, in], y [b, s, out] -> [b, s, out]"""
        return torch.add(y, self.apply_dropout(x) @ self.a().mT @ self.b().mT, alpha=self.scale)

    def apply_dropout(self, x: Tensor) -> Tensor:
        """Dropout on x, from a stream of its own."""
        if not (self.dropout and self.training):
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=self.slot_context.noise)
        return x * keep / (1 - self.dropout)

    def get_factors(self, slot: int) -> tuple[Tensor, Tensor]:
        """A [r, in] and B [out, r] with which a plain LoRA of the same scale gives this slot's numbers."""
        return self.a.of(slot), self.b.of(slot)

    def get_delta_weight(self, slot: int) -> Tensor:
        """What it adds to the linear's weight [out, in]."""
        a, b = self.get_factors(slot)
        return self.scale * b @ a


class LoRA(Method):
    name = "lora"
    paper = "Hu et al. 2021, arXiv:2106.09685"
    what = "A and B at each linear"
    mergeable = True

    @dataclass(frozen=True)
    class Config(Method.Config):
        rank: int = 8
        alpha: float = 16.0
        sites: str = "q k v o"
        rslora: bool = False
        dropout: float = 0.0  # above 0 a cell trains unpacked: its noise must not depend on its neighbours' lengths

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.rank < 1 or not 0 <= self.dropout < 1:
                raise UsageError(f"LoRA: rank >= 1 and 0 <= dropout < 1, found {self.rank}, {self.dropout}")
            some_of(self.sites, tuple(DECODER), "LoRA: sites")

    config: Config

    def build(self) -> None:
        c = self.config
        scale = c.alpha / (c.rank**0.5 if c.rslora else c.rank)
        parts = (c.rank, scale, c.dropout, self.rows)
        self.deltas = self.backbone.attach(c.sites, lambda linear: self.build_delta(linear, *parts))

    def build_delta(
        self, linear: nn.Linear, rank: int, scale: float, dropout: float, slot_context: Rows
    ) -> LowRankDelta:
        """What is put on one linear."""
        return LowRankDelta(linear, rank, scale, dropout, slot_context)

    def start(self, draw: torch.Generator, train: Sequence[Encoded]) -> None:
        for delta in self.deltas.values():
            delta.add_slot(draw)

    def enter(self, stage: Stage, seeds: Sequence[int], train: Sequence[Sequence[Encoded]] = ()) -> None:
        if self.config.dropout and len(seeds) > 1 and stage.batches == "packed":
            raise UsageError(f"method {self.name}: with dropout above 0 cells cannot be packed; set the pack size to 1")
        super().enter(stage, seeds, train)
        self.rows.noise = torch.Generator(self.backbone.device).manual_seed(
            stream(seeds[0], stage.name, "dropout").initial_seed()
        )

    @torch.no_grad()
    def merged(self, slot: int = 0) -> dict[str, Tensor]:
        linears = self.backbone.linears(self.config.sites)
        return {
            f"{self.backbone.path(key)}.weight": linears[key].weight
            + delta.get_delta_weight(slot).to(linears[key].weight.dtype)
            for key, delta in self.deltas.items()
        }

    @torch.no_grad()
    def peft_format(self, slot: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        if not self.mergeable:
            return None
        c, tensors = self.config, {}
        for key, delta in self.deltas.items():
            path = f"base_model.model.{self.backbone.path(key)}"
            tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = delta.get_factors(slot)
        scale = {"r": c.rank, "lora_alpha": c.alpha, "use_rslora": c.rslora, "lora_dropout": c.dropout}
        sites = [self.backbone.sites[site] for site in c.sites.split()]
        return {"peft_type": "LORA", **scale, "target_modules": sites, "bias": "none"}, tensors
