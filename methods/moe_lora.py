"""MOELoRA: low-rank experts, weighed by a gate that sees only which task it is (Liu et al. 2023, arXiv:2310.18339).

y = W x + (alpha / r) sum_i w_i B_i A_i x,   w = softmax(G e_t)

E experts of rank r/E: A_i [r/E, d_in], B_i [d_out, r/E]; e_t [64] is the task's embedding, G [E, 64] one gate for all
linears (or one for each). All but e_t is one for all sources. Trained for T tasks: sum r (d_in + d_out) + 64 T + 64 E
numbers (the authors' table has one more row, for padding). The scale is that of the whole r, as in the authors' code.
A target starts from the mean of the e_t and, unless `trainable_on_target` says more, learns its embedding and the gate.

A_i starts N(0, 0.01), B_i at 0, so at first it changes nothing; e_t N(0, 1), G as `nn.Linear` does. Rank, alpha and E
are the authors'; the linears (theirs: all), no dropout (theirs: 0.1), and what a target does are our choice.
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

TASK_EMBEDDING_SIZE = 64  # of a task's embedding
GATE_TYPES = ("shared", "per_linear")


class ExpertDelta(LowRankDelta):
    """Adds scale * sum_i w_i B_i A_i x to a linear's output; the A_i lie below and the B_i beside each other."""

    def __init__(
        self, linear: nn.Linear, num_experts: int, task_embedding: SlotParameter, gate: SlotParameter | None, *args: Any
    ) -> None:
        super().__init__(linear, *args)
        self.a.is_shared = self.b.is_shared = True  # A [r, in], B [out, r]
        self.num_experts, self.method_parameters = (
            num_experts,
            (task_embedding, gate),
        )  # in a tuple: they are the method's, not this linear's
        if gate is None:
            self.gate = SlotParameter(self.slot_context, is_shared=True)

    def add_slot(self, draw: torch.Generator) -> None:
        self.a.add_slot(torch.empty(self.rank, self.weight_shape[1]).normal_(0, 0.01, generator=draw))
        self.b.add_slot(torch.zeros(self.weight_shape[0], self.rank))
        if self.method_parameters[1] is None:
            self.gate.add_slot(initialize_gate(self.num_experts, draw))

    def get_task_and_gate(self) -> tuple[SlotParameter, SlotParameter]:
        """The tasks' embeddings and the gate that reads them."""
        task, gate = self.method_parameters
        return task, self.gate if gate is None else gate

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [b, s, in], y [b, s, out] -> [b, s, out]"""
        task, gate = self.get_task_and_gate()
        low = self.apply_dropout(x) @ self.a().mT  # [b, s, r]
        weights = self.expand_weights(compute_expert_weights(task(), gate())).to(low.dtype)  # [b, r] or [r]
        return torch.add(y, low * weights.unsqueeze(-2) @ self.b().mT, alpha=self.scale)

    def expand_weights(self, weights: Tensor) -> Tensor:
        """[..., e] -> [..., r]: an expert's weight for each of its r/e dimensions."""
        return weights.repeat_interleave(self.rank // self.num_experts, -1)

    def get_factors(self, slot: int) -> tuple[Tensor, Tensor]:
        task, gate = self.get_task_and_gate()
        return self.a.for_slot(slot), self.b.for_slot(slot) * self.expand_weights(
            compute_expert_weights(task.for_slot(slot), gate.for_slot(slot))
        )


def compute_expert_weights(task_embedding: Tensor, gate: Tensor) -> Tensor:
    """softmax(G e): e [..., 64], G [..., e, 64] -> [..., e]"""
    return (gate @ task_embedding.unsqueeze(-1)).squeeze(-1).float().softmax(-1)


def initialize_gate(num_experts: int, generator: torch.Generator) -> Tensor:
    return nn.init.kaiming_uniform_(torch.empty(num_experts, TASK_EMBEDDING_SIZE), a=5**0.5, generator=generator)


class MoELoRA(LoRA):
    name = "moe_lora"
    paper = "Liu et al. 2023, arXiv:2310.18339"
    trained_part = "experts and gate, one for all sources, each source's embedding; on the target the parts in `trainable_on_target`"
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "target_lr")

    @dataclass(frozen=True)
    class Config(LoRA.Config):
        rank: int = 16  # of all experts together
        alpha: float = 32.0
        experts: int = 8
        gate: str = "shared"  # or "per_linear"
        trainable_on_target: str = "task gate"  # what learns on the target; on full data all: "a b task gate"
        target_lr: float = 1e-4

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(self.trainable_on_target, ("a", "b", "task", "gate"), "method moe_lora: target")
            if self.gate not in GATE_TYPES:
                raise UsageError(f"method moe_lora: no gate {self.gate!r}; there are: {', '.join(GATE_TYPES)}")
            if self.experts < 1 or self.rank % self.experts:
                raise UsageError(f"method moe_lora: {self.experts} experts do not divide a rank of {self.rank}")

    config: Config

    def build(self) -> None:
        self.task = SlotParameter(self.slot_context)  # e [64] of each slot
        self.gate = (
            SlotParameter(self.slot_context, is_shared=True) if self.config.gate == "shared" else None
        )  # G [e, 64]
        super().build()

    def build_delta(self, linear: nn.Linear, *args: Any) -> ExpertDelta:
        return ExpertDelta(linear, self.config.experts, self.task, self.gate, *args)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        super().initialize_slot(generator, train_examples)
        if self.gate is not None:
            self.gate.add_slot(initialize_gate(self.config.experts, generator))
        # the slot's row of one table: sources that share a seed still have embeddings of their own
        self.task.add_slot(torch.randn(len(self.task.tensors) + 1, TASK_EMBEDDING_SIZE, generator=generator)[-1])

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return parameter_name.rpartition(".")[2] in self.config.trainable_on_target.split()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        c = self.config
        decays = parameter_name.split(".")[-3] in ("a", "b")  # a gate is pulled towards nothing
        return OptimizerGroup(
            c.target_lr if self.current_stage == TARGET_STAGE else c.lr, c.weight_decay if decays else 0.0
        )
