"""Bottleneck adapters: s <- s + a(s), a(z) = W_up act(W_down z + b_down) + b_up, on a sublayer's output.

Houlsby et al. 2019 (arXiv:1902.00751): after attention and after the MLP of each layer; Pfeiffer et al. 2020
(arXiv:2005.00247): after the MLP only. The adapter is applied before the residual sum: h <- h + s + a(s). AdapterHub's
Pfeiffer reads a(h + s) instead (`input: residual`); in modern models h has a few huge channels, so use it with
`ln_before`, a trained RMSNorm on the input. Our choices: W_up = 0 (published: N(0, 0.01) or N(0, 0.02), not identity)
and frozen norms of the backbone (Houlsby et al. train them). m and activation are AdapterHub's defaults.

Trained: 2 d m + m + d numbers per adapter (+ d with `ln_before`); Houlsby has 2 L adapters, Pfeiffer L.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Method, OptimizerGroup, SlotContext, SlotParameter
from tasks.core.types import EncodedExample, UsageError

PLACEMENTS = {
    "houlsby": ("o down", "silu"),
    "pfeiffer": ("down", "relu"),
}  # the linears it follows and AdapterHub's activation
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "relu": F.relu, "gelu": F.gelu, "identity": lambda z: z,
}  # fmt: skip
SUBLAYER_NORMS = {
    "o": "input_layernorm",
    "down": "post_attention_layernorm",
}  # its input is the residual stream h
ADAPTER_INPUTS = ("sublayer", "residual")


class Bottleneck(nn.Module):
    """Adds a(s), or a(h + s), to a sublayer's output s. W_up and biases are initialised to 0: initially a = 0."""

    def __init__(
        self, width: int, bottleneck_size: int, activation: str, has_norm: bool, slot_context: SlotContext
    ) -> None:
        super().__init__()
        self.width = width
        self.bottleneck_size = bottleneck_size
        self.activation = ACTIVATIONS[activation]
        self.down = SlotParameter(slot_context)  # W_down [m, d] of each slot
        self.down_bias = SlotParameter(slot_context)  # b_down [1, m]
        self.up = SlotParameter(slot_context)  # W_up [d, m]
        self.up_bias = SlotParameter(slot_context)  # b_up [1, d]
        self.norm = SlotParameter(slot_context) if has_norm else None  # [1, d]
        self.residual: Tensor | None = None  # h [b, s, d], with `input: residual`

    def add_slot(self, generator: torch.Generator) -> None:
        """Add one slot, with all tensors at their initial values."""
        self.down.add_slot(
            nn.init.kaiming_uniform_(torch.empty(self.bottleneck_size, self.width), a=5**0.5, generator=generator)
        )
        self.down_bias.add_slot(torch.zeros(1, self.bottleneck_size))
        self.up.add_slot(torch.zeros(self.width, self.bottleneck_size))
        self.up_bias.add_slot(torch.zeros(1, self.width))
        if self.norm is not None:
            self.norm.add_slot(torch.ones(1, self.width))

    def capture_residual(self, _norm: nn.Module, inputs: tuple[Tensor]) -> None:
        """Forward pre-hook of the sublayer's norm: store the residual stream h."""
        self.residual = inputs[0]

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Output of the sublayer plus that of the adapter: s [b, s, d] -> [b, s, d]."""
        z = s
        if self.residual is not None:
            z = self.residual + s
            self.residual = None
        if self.norm is not None:
            z = F.rms_norm(z.float(), (self.width,), eps=1e-6) * self.norm()
        z = self.activation(z @ self.down().mT + self.down_bias())
        return s + (z @ self.up().mT + self.up_bias()).to(s.dtype)


class Adapter(Method):
    """Bottleneck adapters after the sublayers."""

    name = "adapter"
    paper = "Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00247"
    trained_part = "bottlenecks after sublayers"

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 3e-4
        placement: str = "houlsby"
        reduction: int = 16  # m = d / reduction
        bottleneck: int = 0  # m itself, if not 0
        activation: str = ""  # empty: as published for the placement
        input: str = "sublayer"
        ln_before: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            for option, choices in (
                ("placement", PLACEMENTS),
                ("activation", ["", *ACTIVATIONS]),
                ("input", ADAPTER_INPUTS),
            ):
                if getattr(self, option) not in choices:
                    raise UsageError(f"adapter: no {option} {getattr(self, option)!r}; there are: {', '.join(choices)}")
            if self.reduction < 1 or self.bottleneck < 0:
                raise UsageError(f"adapter: reduction >= 1, bottleneck >= 0, found {self.reduction}, {self.bottleneck}")

    config: Config

    def build(self) -> None:
        c = self.config
        width = self.backbone.hidden_size
        sites, activation = PLACEMENTS[c.placement]
        size = c.bottleneck or max(1, width // c.reduction)
        arguments = (width, size, c.activation or activation, c.ln_before, self.slot_context)
        self.adapters = self.backbone.attach(sites, lambda linear: Bottleneck(*arguments))
        if c.input == "residual":
            for key, adapter in self.adapters.items():
                layer, site = key.split("_")
                norm = self.backbone.model.model.layers[int(layer)].get_submodule(SUBLAYER_NORMS[site])
                self.backbone.register_undo(norm.register_forward_pre_hook(adapter.capture_residual).remove)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        for adapter in self.adapters.values():
            adapter.add_slot(generator)

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """No weight decay on biases and norms."""
        is_vector = "bias" in parameter_name or ".norm." in parameter_name
        return OptimizerGroup(self.config.lr, 0.0 if is_vector else self.config.weight_decay)
