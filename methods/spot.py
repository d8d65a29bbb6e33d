"""SPoT: prompt tuning initialised from prompts of other tasks (Vu et al. 2021, arXiv:2110.07904).

`spot` (targeted): prompts e_s [l, d] of all sources are given. Prompt tuning on the target gives e_t (with as many
steps as the final tuning: our choice); the k sources nearest to it give the initial prompt P_0, from which P is tuned:

  average:  P_0 = sum_r a_r e_r,  a_r = sim(e_t, e_r) / sum sim      (negative similarities count as 0: our choice)
  best:     P_0 = the e_r of those k with the lowest loss on the target's training examples before tuning
            (the paper tunes from each of the k and selects on dev; this is our cheaper choice, without dev)
  sim:      `mean`: cosine of the average tokens, or `tokens`: mean cosine of all l x l pairs of tokens

`spot_generic`: P_0 is one prompt learned on all sources together. Both train l d numbers on the target. All prompts are
initialised from the same draw (`start: common`): otherwise every cosine between prompts is about 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup, Stage
from methods.core.losses import compute_mean_loss
from methods.prompt import SOURCE_PROMPTS, Prompt, stack_source_prompts
from tasks.core.types import EncodedExample, UsageError

EMBEDDING_STAGE = Stage("embed", "target", "packed")  # learns e_t, which selects the nearest sources
RETRIEVALS = ("average", "best")
SIMILARITIES = ("mean", "tokens")
PROBE_EXAMPLES = 64


class SpotGeneric(Prompt):
    """Prompt tuning on the target from one prompt that was trained on all sources."""

    name = "spot_generic"
    paper = "Vu et al. 2021, arXiv:2110.07904"
    trained_part = "virtual tokens, one for all sources, then for each target"
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("target_lr",)

    @dataclass(frozen=True)
    class Config(Prompt.Config):
        start: str = "common"
        target_lr: float = 0.15  # in units of the embedding's standard deviation; half of `lr`, to stay near P_0

    config: Config

    def build(self) -> None:
        super().build()
        self.prompt.is_shared = True

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        lr = self.config.target_lr if self.current_stage == TARGET_STAGE else self.config.lr
        return OptimizerGroup(lr * self.backbone.embedding_std, self.config.weight_decay)


class SPoT(Prompt):
    """Prompt tuning on the target from the prompts of the most similar sources."""

    name = "spot"
    paper = "Vu et al. 2021, arXiv:2110.07904"
    trained_part = "virtual tokens, from those of the nearest sources"
    stages = (EMBEDDING_STAGE, TARGET_STAGE)
    dependency = SOURCE_PROMPTS

    @dataclass(frozen=True)
    class Config(SpotGeneric.Config):
        retrieval: str = "average"
        similarity: str = "mean"
        nearest: int = 3  # k

        def __post_init__(self) -> None:
            super().__post_init__()
            for value, choices in ((self.retrieval, RETRIEVALS), (self.similarity, SIMILARITIES)):
                if value not in choices:
                    raise UsageError(f"method spot: no {value!r}; there are: {', '.join(choices)}")
            if self.start != "common" or self.nearest < 1:
                raise UsageError(f"method spot: start is 'common' and nearest >= 1, found {self.start}, {self.nearest}")

    config: Config
    optimizer_group = SpotGeneric.optimizer_group
    source_prompts: Tensor | None = None  # e_s [S, l, d]; not saved, because inference needs only P

    def load_source_states(self, source_states: Sequence[Mapping[str, Tensor]]) -> None:
        self.source_prompts = stack_source_prompts(source_states, self)

    @torch.no_grad()
    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        if self.source_prompts is None:
            raise UsageError("method spot: the prompts of the sources come first (inherit)")
        super().begin_stage(stage, seeds, train_examples)
        if stage == TARGET_STAGE:
            for slot, prompt in enumerate(self.prompt.tensors):
                prompt.copy_(self.compute_initial_prompt(slot, train_examples[slot] if train_examples else ()))

    def compute_initial_prompt(self, slot: int, train: Sequence[EncodedExample]) -> Tensor:
        """P_0 [l, d] of the target whose prompt e_t this slot holds."""
        similarities = compute_similarities(self.prompt.tensors[slot], self.source_prompts, self.config.similarity)
        nearest, indices = similarities.topk(min(self.config.nearest, len(similarities)))
        candidates = self.source_prompts[indices]  # [k, l, d], the nearest first
        if self.config.retrieval == "average":
            return torch.einsum("k,kld->ld", compute_mixing_weights(nearest), candidates)
        if len(candidates) == 1:
            return candidates[0]
        if not train:
            raise UsageError("method spot: retrieval 'best' needs the target's training examples")
        losses = [self.compute_candidate_loss(slot, prompt, train) for prompt in candidates]
        return candidates[losses.index(min(losses))]

    @torch.no_grad()
    def compute_candidate_loss(self, slot: int, prompt: Tensor, examples: Sequence[EncodedExample]) -> float:
        """Mean loss of the first PROBE_EXAMPLES examples with this prompt, which stays in the slot."""
        self.prompt.tensors[slot].copy_(prompt)
        return compute_mean_loss(self, slot, examples[:PROBE_EXAMPLES])


def compute_similarities(target_prompt: Tensor, source_prompts: Tensor, similarity: str) -> Tensor:
    """sim(e_t, e_s) of each source: e_t [l, d], e_s [S, l, d] -> [S]."""
    if similarity == "mean":
        return F.cosine_similarity(target_prompt.mean(0), source_prompts.mean(1), dim=-1)
    return (
        torch.einsum("id,sjd->s", F.normalize(target_prompt, dim=-1), F.normalize(source_prompts, dim=-1))
        / len(target_prompt) ** 2
    )


def compute_mixing_weights(nearest_similarities: Tensor) -> Tensor:
    """Similarities [k] -> weights [k] that sum to 1; equal weights where no similarity is positive."""
    positive = nearest_similarities.clamp(min=0)
    if positive.sum() > 0:
        return positive / positive.sum()
    return torch.full_like(positive, 1 / len(positive))
