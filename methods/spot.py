"""SPoT: a prompt that starts from prompts learned on other tasks (Vu et al. 2021, arXiv:2110.07904).

`spot` (targeted): prompts e_s [l, d] of all sources are given. A prompt tuning on the target's own examples gives e_t
(as long as the one that follows: our choice); the k sources nearest to it make the start P_0, from which P is tuned:

  average:  P_0 = sum_r a_r e_r,  a_r = sim(e_t, e_r) / sum sim      (negative similarities count as 0: our choice)
  best:     P_0 = e_r of those k that fits the target's training examples best before tuning
            (the paper tunes from each of the k and keeps the best on dev; this is our cheaper choice, blind to dev)
  sim:      `mean`: cosine of the average tokens, or `tokens`: mean cosine of all l x l pairs of tokens

`spot_generic`: one prompt learned on all sources together is the start. Trained on the target by both: l d numbers.
All prompts start from the same draw (`start: common`): between prompts of different starts every cosine is about 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn import functional as F

from methods.base import SOURCE, TARGET, Method, Rate, Stage
from methods.prompt import SOURCE_PROMPTS, Prompt, prompts_of
from tasks.encode import collate, pad_token
from tasks.example import Encoded, UsageError

EMBED = Stage("embed", "target", "packed")  # the target's own prompt, by which its neighbours are found
RETRIEVALS = ("average", "best")
SIMILARITIES = ("mean", "tokens")
ROWS = 8  # `best` looks at this many training examples, so many rows at a time
TRIED = 64


class SpotGeneric(Prompt):
    name = "spot_generic"
    paper = "Vu et al. 2021, arXiv:2110.07904"
    what = "virtual tokens, one for all sources, then for each target"
    stages = (SOURCE, TARGET)
    late = ("target_lr",)

    @dataclass(frozen=True)
    class Config(Prompt.Config):
        start: str = "common"
        target_lr: float = 0.15  # in units of sigma as `lr`; half of it, so that the start is not lost

    config: Config

    def build(self) -> None:
        super().build()
        self.prompt.shared = True

    def rate(self, name: str) -> Rate:
        lr = self.config.target_lr if self.stage == TARGET else self.config.lr
        return Rate(lr * self.backbone.sigma, self.config.weight_decay)


class SPoT(Prompt):
    name = "spot"
    paper = "Vu et al. 2021, arXiv:2110.07904"
    what = "virtual tokens, from those of the nearest sources"
    stages = (EMBED, TARGET)
    parent = SOURCE_PROMPTS

    @dataclass(frozen=True)
    class Config(SpotGeneric.Config):
        retrieval: str = "average"
        similarity: str = "mean"
        nearest: int = 3  # k

        def __post_init__(self) -> None:
            super().__post_init__()
            for value, known in ((self.retrieval, RETRIEVALS), (self.similarity, SIMILARITIES)):
                if value not in known:
                    raise UsageError(f"method spot: no {value!r}; there are: {', '.join(known)}")
            if self.start != "common" or self.nearest < 1:
                raise UsageError(f"method spot: start is 'common' and nearest >= 1, found {self.start}, {self.nearest}")

    config: Config
    rate = SpotGeneric.rate
    sources: Tensor | None = None  # e_s [S, l, d]; not stored: P is all that a target needs

    def inherit(self, parents: Sequence[Mapping[str, Tensor]]) -> None:
        self.sources = prompts_of(parents, self)

    @torch.no_grad()
    def enter(self, stage: Stage, seeds: Sequence[int], train: Sequence[Sequence[Encoded]] = ()) -> None:
        if self.sources is None:
            raise UsageError("method spot: the prompts of the sources come first (inherit)")
        super().enter(stage, seeds, train)
        if stage == TARGET:
            for slot, own in enumerate(self.prompt.sets):
                own.copy_(self.first(slot, train[slot] if train else ()))

    def first(self, slot: int, train: Sequence[Encoded]) -> Tensor:
        """P_0 [l, d] for the target whose own prompt e_t this slot holds."""
        near = similarities(self.prompt.sets[slot], self.sources, self.config.similarity)
        near, places = near.topk(min(self.config.nearest, len(near)))
        candidates = self.sources[places]  # [k, l, d], the nearest first
        if self.config.retrieval == "average":
            return torch.einsum("k,kld->ld", shares(near), candidates)
        if len(candidates) > 1 and not train:
            raise UsageError("method spot: retrieval 'best' needs the target's training examples")
        misfits = [self.misfit(slot, prompt, train) for prompt in candidates] if len(candidates) > 1 else [0.0]
        return candidates[misfits.index(min(misfits))]

    @torch.no_grad()
    def misfit(self, slot: int, prompt: Tensor, items: Sequence[Encoded]) -> float:
        """Mean loss of some examples under this prompt."""
        self.prompt.sets[slot].copy_(prompt)
        return mean_loss(self, slot, items[:TRIED])


@torch.no_grad()
def mean_loss(method: Method, slot: int, items: Sequence[Encoded]) -> float:
    """Of some examples under what this slot holds."""
    parts = [items[i : i + ROWS] for i in range(0, len(items), ROWS)]
    batches = [collate(part, (slot,) * len(part), pad_token(method.backbone.tokenizer)) for part in parts]
    losses = [method.loss(move_data_to_device(method.plan(batch), method.backbone.device)).item() for batch in batches]
    return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(items)


def similarities(own: Tensor, sources: Tensor, kind: str) -> Tensor:
    """e_t [l, d], e_s [S, l, d] -> [S]"""
    if kind == "mean":
        return F.cosine_similarity(own.mean(0), sources.mean(1), dim=-1)
    return torch.einsum("id,sjd->s", F.normalize(own, dim=-1), F.normalize(sources, dim=-1)) / len(own) ** 2


def shares(near: Tensor) -> Tensor:
    """Similarities [k] -> weights [k] that sum to 1; equal ones where nothing is similar at all."""
    near = near.clamp(min=0)
    return near / near.sum() if near.sum() > 0 else torch.full_like(near, 1 / len(near))
