"""Bottleneck adapters: s <- s + a(s), a(z) = W_up act(W_down z + b_down) + b_up, on what a sublayer adds to the stream.

Houlsby et al. 2019 (arXiv:1902.00751): after attention and after the MLP of each layer; Pfeiffer et al. 2020
(arXiv:2005.00247): after the MLP only. The adapter stands before the residual sum: h <- h + s + a(s). AdapterHub's
Pfeiffer reads a(h + s) instead (`input: residual`); in modern models h has a few huge channels, so that wants
`ln_before`, an RMSNorm of its own. W_up = 0 is our choice (published: N(0, 0.01) or N(0, 0.02), not identity), and so
is that the backbone's norms stay frozen (Houlsby et al. train them too). m and activation are AdapterHub's defaults.

Trained: 2 d m + m + d numbers per adapter (+ d with `ln_before`); Houlsby has 2 L adapters, Pfeiffer L.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Method, OptimizerGroup, SlotContext, SlotParameter
from tasks.core.types import EncodedExample, UsageError

PLACEMENTS = {"houlsby": ("o down", "silu"), "pfeiffer": ("down", "relu")}  # after which linear; AdapterHub's act
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "relu": F.relu, "gelu": F.gelu, "identity": lambda z: z,
}  # fmt: skip
SUBLAYER_NORMS = {
    "o": "input_layernorm",
    "down": "post_attention_layernorm",
}  # reads the stream h that the sublayer adds to
ADAPTER_INPUTS = ("sublayer", "residual")


class Bottleneck(nn.Module):
    """Adds a(s), or a(h + s), to a sublayer's output s. W_up and the biases start at 0: at first it changes nothing."""

    def __init__(
        self, width: int, bottleneck_size: int, activation: str, has_norm: bool, slot_context: SlotContext
    ) -> None:
        super().__init__()
        self.width, self.bottleneck_size, self.activation = width, bottleneck_size, ACTIVATIONS[activation]
        self.down, self.down_bias = (
            SlotParameter(slot_context),
            SlotParameter(slot_context),
        )  # W_down [m, d], b_down [1, m] of each slot
        self.up, self.up_bias = SlotParameter(slot_context), SlotParameter(slot_context)  # W_up [d, m], b_up [1, d]
        self.norm = SlotParameter(slot_context) if has_norm else None  # [1, d]
        self.residual: Tensor | None = None  # h [b, s, d], where it is wanted

    def add_slot(self, generator: torch.Generator) -> None:
        """Add one slot."""
        self.down.add_slot(
            nn.init.kaiming_uniform_(torch.empty(self.bottleneck_size, self.width), a=5**0.5, generator=generator)
        )
        self.down_bias.add_slot(torch.zeros(1, self.bottleneck_size))
        self.up.add_slot(torch.zeros(self.width, self.bottleneck_size))
        self.up_bias.add_slot(torch.zeros(1, self.width))
        if self.norm is not None:
            self.norm.add_slot(torch.ones(1, self.width))

    def capture_residual(self, _norm: nn.Module, inputs: tuple[Tensor]) -> None:
        """Remember the stream h on its way into the sublayer."""
        self.residual = inputs[0]

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """s [b, s, d] -> [b, s, d]"""
        z = s
        if self.residual is not None:
            z, self.residual = self.residual + s, None
        if self.norm is not None:
            z = F.rms_norm(z.float(), (self.width,), eps=1e-6) * self.norm()
        z = self.activation(z @ self.down().mT + self.down_bias())
        return s + (z @ self.up().mT + self.up_bias()).to(s.dtype)


class Adapter(Method):
    name = "adapter"
    paper = "Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00247"
    trained_part = "bottlenecks after sublayers"

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 3e-4
        placement: str = "houlsby"
        reduction: int = 16  # m = d / reduction
        bottleneck: int = 0  # m itself, if not 0
        activation: str = ""  # as published for the placement
        input: str = "sublayer"
        ln_before: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            for option, known in (
                ("placement", PLACEMENTS),
                ("activation", ["", *ACTIVATIONS]),
                ("input", ADAPTER_INPUTS),
            ):
                if getattr(self, option) not in known:
                    raise UsageError(f"adapter: no {option} {getattr(self, option)!r}; there are: {', '.join(known)}")
            if self.reduction < 1 or self.bottleneck < 0:
                raise UsageError(f"adapter: reduction >= 1, bottleneck >= 0, found {self.reduction}, {self.bottleneck}")

    config: Config

    def build(self) -> None:
        c, width = self.config, self.backbone.hidden_size
        sites, act = PLACEMENTS[c.placement]
        size = c.bottleneck or max(1, width // c.reduction)
        parts = (width, size, c.activation or act, c.ln_before, self.slot_context)
        self.adapters = self.backbone.attach(sites, lambda linear: Bottleneck(*parts))
        if c.input == "residual":
            for key, adapter in self.adapters.items():
                layer, site = key.split("_")
                norm = self.backbone.model.model.layers[int(layer)].get_submodule(SUBLAYER_NORMS[site])
                self.backbone.register_undo(norm.register_forward_pre_hook(adapter.capture_residual).remove)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        for adapter in self.adapters.values():
            adapter.add_slot(generator)

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """No decay on biases and norms."""
        plain = "bias" in parameter_name or ".norm." in parameter_name
        return OptimizerGroup(self.config.lr, 0.0 if plain else self.config.weight_decay)
