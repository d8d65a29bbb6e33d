"""LLaMA-Adapter: in the top L_a layers, every head also attends to a learned prompt, through a gate that starts at 0.

    K_a = P W_k^T (+ b_k),  V_a = P W_v^T (+ b_v)
    o^h = softmax(q K^T / sqrt(d_h) + mask) V + tanh(g^h) softmax(q K_a^T / sqrt(d_h)) V_a

Zhang et al. 2023 (arXiv:2303.16199, eq. 1 to 8, with tanh and sqrt(d_h) as in the authors' training code). In each of
those layers P [K, d] and g [H] are trained; W_k and W_v are the frozen projections. With two softmaxes
g = 0 is exactly the frozen model. q has the rotary embedding, K_a none; the frozen k_norm, where there is one (Qwen3),
is applied to K_a (our choice). P is initialised from N(0, 1), the scale of a normalised hidden state: its gradient is 0
while g = 0, and with P = 0 as well neither would ever change.
Trained: L_a (K d + H) numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.base import Method, OptimizerGroup, SlotParameter
from methods.core.attention import compute_gated_attention, project_keys_values
from tasks.core.types import EncodedExample, UsageError

UNADAPTED_LAYERS = 2  # layers at the bottom, as published (30 of 32)


class LlamaAdapter(Method):
    """Trainable prompt with zero-initialised gated attention in the top layers."""

    name = "llama_adapter"
    paper = "Zhang et al. 2023, arXiv:2303.16199"
    trained_part = "a gated prompt in the attention"
    betas = (0.9, 0.95)

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 2e-3  # the published 9e-3 is a base rate for a batch of 256
        weight_decay: float = 0.02
        warmup: float = 0.1
        schedule: str = "cosine"
        length: int = 10  # K
        layers: int = 0  # L_a, from the top; 0: all but the lowest two

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.length < 1 or self.layers < 0:
                raise UsageError(f"llama_adapter: length >= 1, layers >= 0, found {self.length}, {self.layers}")

    config: Config

    def build(self) -> None:
        depth = self.backbone.config.num_hidden_layers
        if self.config.layers > depth:
            raise UsageError(f"llama_adapter: {self.config.layers} layers, but {self.backbone.name} has {depth}")
        top = range(depth - (self.config.layers or max(1, depth - UNADAPTED_LAYERS)), depth)
        # P [K, d] of each slot
        self.prompts = nn.ModuleDict({str(layer): SlotParameter(self.slot_context) for layer in top})
        self.gates = nn.ModuleDict({str(layer): SlotParameter(self.slot_context) for layer in top})  # g [H]
        self.backbone.add_attention_term(self.compute_attention_term)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        for prompt, gate in zip(self.prompts.values(), self.gates.values(), strict=True):
            prompt.add_slot(torch.randn(self.config.length, self.backbone.hidden_size, generator=generator))
            gate.add_slot(torch.zeros(self.backbone.config.num_attention_heads))

    def compute_attention_term(self, attention: nn.Module, q: Tensor) -> Tensor | None:
        """Second term of o^h for queries q [b, H, s, d_h] -> [b, s, H, d_h]; None below the top layers."""
        layer = str(attention.layer_idx)
        if layer not in self.prompts:
            return None
        key, value = project_keys_values(attention, self.prompts[layer].stack_present_slots())
        return compute_gated_attention(
            attention,
            q,
            self.slot_context.gather_rows(key),
            self.slot_context.gather_rows(value),
            self.gates[layer]().tanh(),
        )

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """No weight decay on the gates."""
        return OptimizerGroup(self.config.lr, 0.0 if parameter_name.startswith("gates.") else self.config.weight_decay)
