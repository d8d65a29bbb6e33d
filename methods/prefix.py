"""Prefix tuning: train keys and values K_i, V_i [H_kv, l, d_h] in front of the text's in every layer i, nothing else.

Li and Liang 2021 (arXiv:2101.00190); training the table directly, without a network, is P-tuning v2 (Liu et al. 2021,
arXiv:2110.07602). The keys are stored as attention uses them, after the rotary embedding; the text starts at position
l. Trained: 2 l L d_kv numbers.

With `mlp: m` a network computes the table, which Li and Liang found more stable on full data: [K_1; V_1; ...; K_L; V_L]
= tanh(E W_1^T + b_1) W_2^T + b_2, E [l, d_kv], W_1 [m, d_kv], W_2 [2 L d_kv, m]. Trained in that case: l d_kv + (d_kv +
1) m + (m + 1) 2 L d_kv. E is initialised from N(0, 1), the rest as in `nn.Linear`.

Initialisation of the direct table (our choice): the keys and values of the frozen model for label words and
instruction, so that the initial model is the frozen one with that text in front. Random or zero tables take part in
every softmax and disturb it. A prefix is stored in the cache, which gradient checkpointing discards: the two exclude
each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

import torch
from torch import Tensor, nn

from methods.base import Method, SlotContext, SlotParameter
from methods.core.prompt_initialization import select_task_tokens
from tasks.core.types import EncodedExample, UsageError


class Prefix(Method):
    """Trainable keys and values in front of the text in every layer."""

    name = "prefix"
    paper = "Li and Liang 2021, arXiv:2101.00190; Liu et al. 2021, arXiv:2110.07602"
    trained_part = "keys and values before the text"

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 5e-3
        length: int = 20  # 20 few-shot, 64 on full data
        mlp: int = 0  # width m of the network that computes the table; 0: the table itself is trained

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.length < 1 or self.mlp < 0:
                raise UsageError(f"prefix: length is at least 1 and mlp at least 0, found {self.length}, {self.mlp}")

    config: Config

    def build(self) -> None:
        self.num_virtual_tokens = self.config.length
        layers = range(self.backbone.config.num_hidden_layers)
        if self.config.mlp:
            self.table = SlotParameter(self.slot_context)  # E [l, d_kv] of each slot
            self.inner = SlotLinear(self.slot_context)  # W_1, b_1
            self.outer = SlotLinear(self.slot_context)  # W_2, b_2
        else:
            self.keys = nn.ModuleList(SlotParameter(self.slot_context) for _ in layers)  # [H_kv, l, d_h] of each slot
            self.values = nn.ModuleList(SlotParameter(self.slot_context) for _ in layers)

    @torch.no_grad()
    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        if self.config.mlp:
            _, layers, heads, d_h = self.cache_shape
            self.table.add_slot(torch.randn(self.num_virtual_tokens, heads * d_h, generator=generator))
            self.inner.add_slot(self.config.mlp, heads * d_h, generator)
            self.outer.add_slot(2 * layers * heads * d_h, self.config.mlp, generator)
            return
        tokenizer = self.backbone.tokenizer
        tokens = select_prefix_tokens(train_examples, len(tokenizer), set(tokenizer.all_special_ids), generator)
        ids = torch.tensor([[*islice(cycle(tokens), self.num_virtual_tokens)]], device=self.backbone.device)  # [1, l]
        cache = self.backbone.create_cache()
        positions = torch.arange(self.num_virtual_tokens, device=ids.device)[None]
        self.backbone.compute_hidden_states(
            input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=positions, cache=cache
        )
        for layer, key, value in zip(cache.layers, self.keys, self.values, strict=True):
            key.add_slot(layer.keys[0].float().clone())
            value.add_slot(layer.values[0].float().clone())

    @property
    def cache_shape(self) -> tuple[int, int, int, int]:
        """Shape (2, L, H_kv, d_h) of the keys and values of one position."""
        config = self.backbone.config
        d_h = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2, config.num_hidden_layers, config.num_key_value_heads, d_h

    def prefix_key_values(self) -> list[tuple[Tensor, Tensor]]:
        dtype = self.backbone.autocast_dtype or self.backbone.model.dtype
        if self.config.mlp:
            _, layers, heads, d_h = self.cache_shape
            table = self.outer(self.inner(self.table()).tanh())  # [..., l, 2 L d_kv], K_1 V_1 K_2 ... as in peft
            pairs = table.unflatten(-1, (layers, 2, heads, d_h)).movedim(-5, -2).to(dtype)  # [..., L, 2, H_kv, l, d_h]
            return [(key, value) for key, value in (layer.unbind(-4) for layer in pairs.unbind(-5))]
        return [(key().to(dtype), value().to(dtype)) for key, value in zip(self.keys, self.values, strict=True)]


class SlotLinear(nn.Module):
    """Linear y = x W^T + b with W [out, in] and b [out] of each slot."""

    def __init__(self, slot_context: SlotContext) -> None:
        super().__init__()
        self.weight = SlotParameter(slot_context)
        self.bias = SlotParameter(slot_context)

    def add_slot(self, out_features: int, in_features: int, generator: torch.Generator) -> None:
        """Add one slot, both tensors uniform in +-1 / sqrt(in_features) as in `nn.Linear`."""
        bound = in_features**-0.5
        self.weight.add_slot(torch.empty(out_features, in_features).uniform_(-bound, bound, generator=generator))
        self.bias.add_slot(torch.empty(out_features).uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., l, in] -> [..., l, out]"""
        return x @ self.weight().mT + self.bias().unsqueeze(-2)


def select_prefix_tokens(
    train: Sequence[EncodedExample], vocab_size: int, special_ids: set[int], generator: torch.Generator
) -> list[int]:
    """Tokens of the label words and of the instruction; without either, all tokens in random order."""
    labels, instruction = select_task_tokens(train, special_ids)
    pool = torch.randperm(vocab_size, generator=generator).tolist()
    return [*chain(*labels), *instruction] or [token for token in pool if token not in special_ids]
