"""Prompt tuning: the input is [P ; E(x) ; E(y)] and only P [l, d] is trained (Lester et al. 2021, arXiv:2104.08691).

Trained: l d numbers. The published learning rate, 0.3, is for T5, whose embedding entries have a size of about 1. Here
`lr` is in units of the standard deviation of the backbone's embedding (`Backbone.embedding_std`), so that one value
suits every backbone (our choice). Also our choice: AdamW with a schedule (published: Adafactor at a constant rate), and
initialisation from the task's label words and instruction (published: the first, most frequent rows of T5's
vocabulary).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.base import Method, MethodDependency, OptimizerGroup, SlotParameter
from methods.core.prompt_initialization import initialize_common_prompt, initialize_prompt
from tasks.core.types import EncodedExample, UsageError

SOURCE_PROMPTS = MethodDependency("prompt", {"start": "common"}, ("length",))  # SPoT, ATTEMPT and MPT depend on it


class Prompt(Method):
    """Trainable virtual tokens in front of the text."""

    name = "prompt"
    paper = "Lester et al. 2021, arXiv:2104.08691"
    trained_part = "virtual tokens at the input"

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 0.3  # in units of the embedding's standard deviation
        length: int = 20  # 20 few-shot, 100 on full data
        start: str = "task"  # label words and instruction, or "common": one draw for all tasks

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.length < 1:
                raise UsageError(f"prompt: length is at least 1, found {self.length}")
            if self.start not in ("task", "common"):
                raise UsageError(f"prompt: no start {self.start!r}; there are: task, common")

    config: Config

    def build(self) -> None:
        self.num_virtual_tokens = self.config.length
        self.prompt = SlotParameter(self.slot_context)  # P [l, d] of each slot

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        if self.config.start == "common":
            self.prompt.add_slot(initialize_common_prompt(self.backbone, self.config.length))
        else:
            self.prompt.add_slot(initialize_prompt(self.backbone, self.config.length, train_examples, generator))

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor:
        return self.prompt()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        return OptimizerGroup(self.config.lr * self.backbone.embedding_std, self.config.weight_decay)

    @torch.no_grad()
    def peft_format(self, slot: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        if not self.can_share_prefix:
            return None  # the prompt depends on the text of the row
        row = torch.zeros(1, 1, dtype=torch.long, device=self.backbone.device)  # any text will do
        self.slot_context.activate((slot,), row.device)
        shape = self.backbone.config
        prompt = self.prompt_embeddings(self.backbone.embed(row), row.bool())
        sizes = {"num_layers": shape.num_hidden_layers, "num_attention_heads": shape.num_attention_heads}
        config = {
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": self.num_virtual_tokens,
            "token_dim": self.backbone.hidden_size,
        }
        return {**config, **sizes, "num_transformer_submodules": 1}, {"prompt_embeddings": prompt}


def stack_source_prompts(source_states: Sequence[Mapping[str, Tensor]], method: Method) -> Tensor:
    """Stack the prompts [S, l, d] that cells of `prompt` learned on the sources.

    Raises UsageError where there is none or a length or width differs from the method's.
    """
    device = method.backbone.device
    prompts = [state["prompt.tensors.0"].detach().to(device, torch.float32) for state in source_states]
    expected_shape = (method.num_virtual_tokens, method.backbone.hidden_size)
    if not prompts or any(prompt.shape != expected_shape for prompt in prompts):
        shapes = sorted({tuple(prompt.shape) for prompt in prompts}) or "none"
        raise UsageError(f"method {method.name}: source prompts of shape {expected_shape} are needed, found {shapes}")
    return torch.stack(prompts)
