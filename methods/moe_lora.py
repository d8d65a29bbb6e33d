"""MOELoRA: low-rank experts, weighted by a gate whose only input is the task (Liu et al. 2023, arXiv:2310.18339).

y = W x + (alpha / r) sum_i w_i B_i A_i x,   w = softmax(G e_t)

E experts of rank r/E: A_i [r/E, d_in], B_i [d_out, r/E]; e_t [64] is the task's embedding, G [E, 64] one gate for all
linears (or one for each). Everything but e_t is shared by all sources. Trained for T tasks: sum r (d_in + d_out) + 64 T
+ 64 E numbers (the authors' table has one more row, for padding). The scale is that of the whole r, as in the authors'
code. A target starts from the mean of the e_t and by default trains its embedding and the gate (`trainable_on_target`).

A_i is initialised from N(0, 0.01), B_i to 0, so the initial update is 0; e_t from N(0, 1), G as in `nn.Linear`. Rank,
alpha and E are the authors'; the linears (theirs: all), no dropout (theirs: 0.1), and the training on the target are
our choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup, SlotParameter
from methods.core.config import validate_choices
from methods.lora import LoRA, LowRankDelta
from tasks.core.types import EncodedExample, UsageError

TASK_EMBEDDING_SIZE = 64
GATE_TYPES = ("shared", "per_linear")


class ExpertDelta(LowRankDelta):
    """Update that adds scale * sum_i w_i B_i A_i x; the A_i are stacked as rows of A, the B_i as columns of B."""

    def __init__(
        self, linear: nn.Linear, num_experts: int, task_embedding: SlotParameter, gate: SlotParameter | None, *args: Any
    ) -> None:
        super().__init__(linear, *args)
        self.a.is_shared = True  # A [r, in]
        self.b.is_shared = True  # B [out, r]
        self.num_experts = num_experts
        # in a tuple, so that they are registered with the method only, not with this module
        self.method_parameters = (task_embedding, gate)
        if gate is None:
            self.gate = SlotParameter(self.slot_context, is_shared=True)

    def add_slot(self, draw: torch.Generator) -> None:
        self.a.add_slot(torch.empty(self.rank, self.weight_shape[1]).normal_(0, 0.01, generator=draw))
        self.b.add_slot(torch.zeros(self.weight_shape[0], self.rank))
        if self.method_parameters[1] is None:
            self.gate.add_slot(initialize_gate(self.num_experts, draw))

    def get_task_and_gate(self) -> tuple[SlotParameter, SlotParameter]:
        """The task embeddings e_t and the gate G of this linear."""
        task, shared_gate = self.method_parameters
        return task, self.gate if shared_gate is None else shared_gate

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the update to the output y of the linear: x [b, s, in], y [b, s, out] -> [b, s, out]."""
        task, gate = self.get_task_and_gate()
        projected = self.apply_dropout(x) @ self.a().mT  # [b, s, r]
        weights = self.expand_weights(compute_expert_weights(task(), gate())).to(projected.dtype)  # [b, r] or [r]
        return torch.add(y, projected * weights.unsqueeze(-2) @ self.b().mT, alpha=self.scale)

    def expand_weights(self, weights: Tensor) -> Tensor:
        """Repeat each expert's weight for its r/E dimensions: [..., E] -> [..., r]."""
        return weights.repeat_interleave(self.rank // self.num_experts, -1)

    def get_factors(self, slot: int) -> tuple[Tensor, Tensor]:
        task, gate = self.get_task_and_gate()
        weights = self.expand_weights(compute_expert_weights(task.for_slot(slot), gate.for_slot(slot)))  # [r]
        return self.a.for_slot(slot), self.b.for_slot(slot) * weights


def compute_expert_weights(task_embedding: Tensor, gate: Tensor) -> Tensor:
    """Expert weights softmax(G e_t): e_t [..., 64], G [..., E, 64] -> [..., E]."""
    return (gate @ task_embedding.unsqueeze(-1)).squeeze(-1).float().softmax(-1)


def initialize_gate(num_experts: int, generator: torch.Generator) -> Tensor:
    """G [E, 64], Kaiming uniform as in `nn.Linear`."""
    return nn.init.kaiming_uniform_(torch.empty(num_experts, TASK_EMBEDDING_SIZE), a=5**0.5, generator=generator)


class MoELoRA(LoRA):
    """Mixture of low-rank experts, weighted by task."""

    name = "moe_lora"
    paper = "Liu et al. 2023, arXiv:2310.18339"
    trained_part = (
        "experts and gate, one for all sources, each source's embedding; "
        "on the target the parts in `trainable_on_target`"
    )
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "target_lr")

    @dataclass(frozen=True)
    class Config(LoRA.Config):
        rank: int = 16  # of all experts together
        alpha: float = 32.0
        experts: int = 8
        gate: str = "shared"  # or "per_linear"
        trainable_on_target: str = (
            "task gate"  # parameters that are trained on the target; on full data all: "a b task gate"
        )
        target_lr: float = 1e-4

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(
                self.trainable_on_target, ("a", "b", "task", "gate"), "method moe_lora: trainable_on_target"
            )
            if self.gate not in GATE_TYPES:
                raise UsageError(f"method moe_lora: no gate {self.gate!r}; there are: {', '.join(GATE_TYPES)}")
            if self.experts < 1 or self.rank % self.experts:
                raise UsageError(f"method moe_lora: {self.experts} experts do not divide a rank of {self.rank}")

    config: Config

    def build(self) -> None:
        has_shared_gate = self.config.gate == "shared"
        self.task = SlotParameter(self.slot_context)  # e_t [64] of each slot
        self.gate = SlotParameter(self.slot_context, is_shared=True) if has_shared_gate else None  # G [E, 64]
        super().build()

    def build_delta(self, linear: nn.Linear, *args: Any) -> ExpertDelta:
        return ExpertDelta(linear, self.config.experts, self.task, self.gate, *args)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        super().initialize_slot(generator, train_examples)
        if self.gate is not None:
            self.gate.add_slot(initialize_gate(self.config.experts, generator))
        # the last row of a table that grows with the slots, so that sources with the same seed differ
        self.task.add_slot(torch.randn(len(self.task.tensors) + 1, TASK_EMBEDDING_SIZE, generator=generator)[-1])

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return parameter_name.rpartition(".")[2] in self.config.trainable_on_target.split()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        c = self.config
        has_decay = parameter_name.split(".")[-3] in ("a", "b")  # no weight decay on task embeddings and gates
        lr = c.target_lr if self.current_stage == TARGET_STAGE else c.lr
        return OptimizerGroup(lr, c.weight_decay if has_decay else 0.0)
