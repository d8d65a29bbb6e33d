"""ATTEMPT: an attention mixture of source prompts for every text (Asai et al. 2022, arXiv:2205.11961).

  xhat = max over the given tokens of E(x),   phat_j = max over l of P_j
  g = LayerNorm(W_up SiLU(W_down xhat)),      a = softmax_j(phat_j . g / tau)     over the S sources and P_* itself
  P(x) = P_* + sum_j a_j P_j + a_* P_*

P_j [l, d] are the sources' prompts, frozen. Trained on the target: P_* [l, d], W_down [m, d], W_up [d, m], and weight
and bias of the norm: l d + 2 m d + 2 d numbers (the authors' code leaves the norm out). P_* is initialised to
the first source's prompt, W from N(0, 0.01). The form is that of the authors' code. They can also pretrain W on the
sources; here it is initialised for every target.

Our choices for causal models: xhat excludes answers and padding, which would leak the answer and depend on the batch;
and tau = c d rms(phat), because the authors' tau = e d fits the size of T5's embeddings: with other models all a_j stay
equal. On their T5-large prompts c = 0.18 gives the same tau. The network's learning rate is ours: theirs has no effect
in their code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import OptimizerGroup, SlotParameter
from methods.prompt import SOURCE_PROMPTS, Prompt, stack_source_prompts
from tasks.core.types import EncodedExample, UsageError


class ATTEMPT(Prompt):
    """Prompt tuning with a mixture of the sources' prompts that depends on the text."""

    name = "attempt"
    paper = "Asai et al. 2022, arXiv:2205.11961"
    trained_part = "virtual tokens and the attention network over the sources' prompts"
    dependency = SOURCE_PROMPTS
    can_share_prefix = False  # the prompt depends on the text of the row

    @dataclass(frozen=True)
    class Config(Prompt.Config):
        inner: int = 100  # m
        temperature: float = 0.18  # c
        attention_lr: float = 1e-3

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.inner < 1 or self.temperature <= 0:
                raise UsageError(
                    f"method attempt: inner >= 1 and temperature > 0, found {self.inner}, {self.temperature}"
                )

    config: Config

    def build(self) -> None:
        super().build()
        self.down = SlotParameter(self.slot_context)  # W_down [m, d]
        self.up = SlotParameter(self.slot_context)  # W_up [d, m]
        self.weight = SlotParameter(self.slot_context)  # of the norm [d]
        self.bias = SlotParameter(self.slot_context)  # of the norm [d]
        no_sources = torch.empty(0, self.num_virtual_tokens, self.backbone.hidden_size)
        self.register_buffer("source_prompts", no_sources)  # P_j [S, l, d]

    def load_source_states(self, source_states: Sequence[Mapping[str, Tensor]]) -> None:
        self.source_prompts = stack_source_prompts(source_states, self)

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.source_prompts = state.get("source_prompts", self.source_prompts).clone()
        super().load(state)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        if not len(self.source_prompts):
            raise UsageError("method attempt: the prompts of the sources come first (inherit)")
        width = self.backbone.hidden_size
        inner = self.config.inner
        self.prompt.add_slot(self.source_prompts[0].clone())
        self.down.add_slot(torch.empty(inner, width).normal_(0, 0.01, generator=generator))
        self.up.add_slot(torch.empty(width, inner).normal_(0, 0.01, generator=generator))
        self.weight.add_slot(torch.ones(width))
        self.bias.add_slot(torch.zeros(width))

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor:
        text = text_embeddings.float().masked_fill(~prompt_mask[..., None], float("-inf")).amax(1)  # xhat [b, d]
        target_prompt = self.prompt().expand(len(text), -1, -1)  # P_* [b, l, d]
        return mix_prompts(target_prompt, self.source_prompts, self.compute_query(text), self.config.temperature)

    def compute_query(self, pooled_text: Tensor) -> Tensor:
        """The query g: xhat [b, d] -> [b, d]."""
        inner = F.silu(self.down() @ pooled_text[..., None])  # [b, m, 1]
        return F.layer_norm((self.up() @ inner)[..., 0], pooled_text.shape[-1:]) * self.weight() + self.bias()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        short_name = parameter_name.split(".")[0]
        if short_name == "prompt":
            return super().optimizer_group(parameter_name)
        weight_decay = 0.0 if short_name in ("weight", "bias") else self.config.weight_decay
        return OptimizerGroup(self.config.attention_lr, weight_decay)


def mix_prompts(target_prompt: Tensor, source_prompts: Tensor, query: Tensor, temperature: float) -> Tensor:
    """P(x): P_* [b, l, d], P_j [S, l, d], g [b, d] -> [b, l, d]."""
    pooled = source_prompts.amax(1)  # phat [S, d]
    scores = torch.cat([query @ pooled.mT, (query * target_prompt.amax(1)).sum(-1, keepdim=True)], dim=1)  # [b, S + 1]
    tau = temperature * target_prompt.shape[-1] * pooled.square().mean().sqrt()
    attention = (scores / tau).softmax(-1)  # a [b, S + 1]
    source_mix = torch.einsum("bs,sld->bld", attention[:, :-1], source_prompts)
    return target_prompt + source_mix + attention[:, -1, None, None] * target_prompt
