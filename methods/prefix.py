"""Prefix tuning: keys and values K_i, V_i [H_kv, l, d_h] before the text's, in every layer i, are all that learns.

Li and Liang 2021 (arXiv:2101.00190); the direct table, without a network behind it, is P-tuning v2 (Liu et al. 2021,
arXiv:2110.07602). The keys are held as attention compares them, after the position rotation; the text starts at
position l. Trained: 2 l L d_kv numbers.

Start (our choice): what the frozen model itself computes for label words and instruction, so that at first this is the
model with that text in front. Random tables, or zeros, take part in every softmax and disturb it. A prefix lives in the
cache, which gradient checkpointing throws away: the two exclude each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from methods.base import Bank, Method
from tasks.example import Encoded, UsageError


class Prefix(Method):
    name = "prefix"
    paper = "Li and Liang 2021, arXiv:2101.00190; Liu et al. 2021, arXiv:2110.07602"
    what = "keys and values before the text"

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 5e-3
        length: int = 20  # 20 few-shot, 64 on full data

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.length < 1:
                raise UsageError(f"prefix: length is at least 1, found {self.length}")

    config: Config

    def build(self) -> None:
        self.virtual, layers = self.config.length, range(self.backbone.config.num_hidden_layers)
        self.keys = nn.ModuleList(Bank(self.rows) for _ in layers)  # [H_kv, l, d_h] of each slot
        self.values = nn.ModuleList(Bank(self.rows) for _ in layers)

    @torch.no_grad()
    def start(self, draw: torch.Generator, train: Sequence[Encoded]) -> None:
        tokenizer = self.backbone.tokenizer
        words = opening(train, len(tokenizer), set(tokenizer.all_special_ids), draw)
        ids = torch.tensor([[*islice(cycle(words), self.virtual)]], device=self.backbone.device)  # [1, l]
        cache, places = self.backbone.cache(), torch.arange(self.virtual, device=ids.device)[None]
        self.backbone.hidden(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=places, cache=cache)
        for layer, key, value in zip(cache.layers, self.keys, self.values, strict=True):
            key.add(layer.keys[0].float().clone())
            value.add(layer.values[0].float().clone())

    def past(self) -> list[tuple[Tensor, Tensor]]:
        dtype = self.backbone.autocast_dtype or self.backbone.model.dtype
        return [(key().to(dtype), value().to(dtype)) for key, value in zip(self.keys, self.values, strict=True)]


def opening(train: Sequence[Encoded], vocabulary: int, special: set[int], draw: torch.Generator) -> list[int]:
    """Tokens of the label words and of the instruction; with neither, all tokens in a drawn order."""
    words: list[int] = []
    if train:
        first = train[0]
        if all(item.choices == first.choices for item in train):  # not where every item brings its own options
            words += [token for choice in first.choices for token in choice]
        words += [token for token in first.prompt[: first.prefix] if token not in special]
    pool = torch.randperm(vocabulary, generator=draw).tolist()
    return words or [token for token in pool if token not in special]
