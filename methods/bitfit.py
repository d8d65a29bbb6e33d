"""BitFit: y = W x + b, of which only b learns (Ben Zaken et al. 2021, arXiv:2106.10199).

Each slot learns a difference D to the backbone's bias, y = W x + (b + D): under Adam the same as learning b + D itself,
and D = 0 is the frozen model to the bit. Linears without a bias count as having b = 0.
Trained: d_out numbers for every linear it is put on; L (d_q + 2 d_kv) where q, k and v have a bias (Qwen2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.base import Method, OptimizerGroup, SlotContext, SlotParameter
from tasks.core.types import EncodedExample, UsageError

FALLBACK_SITES = "q k v"  # where biases are added to a backbone that has none (Llama, Qwen3): where Qwen2 has them


class BiasDelta(nn.Module):
    """Adds D to a linear's output. D starts at 0, so at first it changes nothing."""

    def __init__(self, linear: nn.Linear, slot_context: SlotContext) -> None:
        super().__init__()
        self.out_features, self.bias = linear.out_features, SlotParameter(slot_context)  # D [1, out] of each slot

    def add_slot(self) -> None:
        """Add one slot."""
        self.bias.add_slot(torch.zeros(1, self.out_features))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """y [b, s, out] -> [b, s, out]"""
        return y + self.bias().to(y.dtype)


class BitFit(Method):
    name = "bitfit"
    paper = "Ben Zaken et al. 2021, arXiv:2106.10199"
    trained_part = "biases"
    is_mergeable = True

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 1e-3
        sites: str = "existing"  # the biases there are; "all": at all seven linears (BitFit-all); or sites by name

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.sites.split():
                raise UsageError("bitfit: sites takes existing, all, or names of linears; found none")

    config: Config

    def build(self) -> None:
        self.bias_sites = self._resolve_sites()
        self.biases = self.backbone.attach(self.bias_sites, lambda linear: BiasDelta(linear, self.slot_context))
        # a bias where the architecture has none cannot be saved in its weights
        self.is_mergeable = all(
            linear.bias is not None for linear in self.backbone.get_linears(self.bias_sites).values()
        )

    def _resolve_sites(self) -> str:
        sites = " ".join(self.backbone.site_modules)
        if self.config.sites == "all":
            return sites
        if self.config.sites != "existing":
            return self.config.sites
        having = {
            key.split("_")[1] for key, linear in self.backbone.get_linears(sites).items() if linear.bias is not None
        }
        return " ".join(site for site in self.backbone.site_modules if site in having) or FALLBACK_SITES

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        for bias in self.biases.values():
            bias.add_slot()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """No decay: it would pull towards the pretrained biases here, towards 0 in the paper's form."""
        return OptimizerGroup(self.config.lr)

    @torch.no_grad()
    def merged_weights(self, slot: int = 0) -> dict[str, Tensor]:
        if not self.is_mergeable:
            raise UsageError(
                f"method bitfit: {self.backbone.name} lacks biases at some of: {self.bias_sites}; no merge"
            )
        linears = self.backbone.get_linears(self.bias_sites)
        return {
            f"{self.backbone.get_module_path(key)}.bias": linears[key].bias
            + bias.bias.for_slot(slot)[0].to(linears[key].bias.dtype)
            for key, bias in self.biases.items()
        }
