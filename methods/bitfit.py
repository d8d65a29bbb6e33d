"""BitFit: y = W x + b, where only b is trained (Ben Zaken et al. 2021, arXiv:2106.10199).

Each slot trains a difference D to the backbone's bias, y = W x + (b + D): equivalent under Adam to training b + D, and
D = 0 is exactly the frozen model. Linears without a bias count as b = 0. Trained: d_out numbers for every such linear,
i.e. L (d_q + 2 d_kv) where q, k and v have a bias (Qwen2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.base import Method, OptimizerGroup, SlotContext, SlotParameter
from tasks.core.types import EncodedExample, UsageError

FALLBACK_SITES = "q k v"  # those with biases in Qwen2; used for a backbone without biases (Llama, Qwen3)


class BiasDelta(nn.Module):
    """Trainable D that is added to a linear's output, initialised to 0."""

    def __init__(self, linear: nn.Linear, slot_context: SlotContext) -> None:
        super().__init__()
        self.out_features = linear.out_features
        self.bias = SlotParameter(slot_context)  # D [1, out] of each slot

    def add_slot(self) -> None:
        """Add one slot with D = 0."""
        self.bias.add_slot(torch.zeros(1, self.out_features))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add D: y [b, s, out] -> [b, s, out]."""
        return y + self.bias().to(y.dtype)


class BitFit(Method):
    """Train biases only."""

    name = "bitfit"
    paper = "Ben Zaken et al. 2021, arXiv:2106.10199"
    trained_part = "biases"
    is_mergeable = True

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 1e-3
        sites: str = "existing"  # linears that have a bias; "all": all seven linears (BitFit-all); or names of sites

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
        """Names of the adapted sites, separated by spaces."""
        sites = " ".join(self.backbone.site_modules)
        if self.config.sites == "all":
            return sites
        if self.config.sites != "existing":
            return self.config.sites
        sites_with_bias = {
            key.split("_")[1] for key, linear in self.backbone.get_linears(sites).items() if linear.bias is not None
        }
        return " ".join(site for site in self.backbone.site_modules if site in sites_with_bias) or FALLBACK_SITES

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        for bias in self.biases.values():
            bias.add_slot()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """No weight decay: here it would pull towards the pretrained biases, in the paper's form towards 0."""
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
