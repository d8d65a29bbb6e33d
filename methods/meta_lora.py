"""MeTA-LoRA: one LoRA from which a few steps on a few examples of a task lead far (arXiv:2510.11598).

  (1)  n tasks without replacement; of each, disjoint S_i and Q_i from its pool of N examples
  (2)  theta_i^0 = theta,  theta_i^{s+1} = theta_i^s - alpha clip(grad L_{B_s}(theta_i^s)),  s < k,  B_s a batch of S_i
  (3)  G = (1/n) sum_i grad L_{Q_i}(theta_i^k)
  (4)  theta <- AdamW(theta, clip(G); beta)

theta: A and B of shared_lora, one for all sources; r (d_in + d_out) for every linear. (1)-(4) are one step of the
source stage. First order (FOMAML): the gradient in (3) is with respect to theta_i^k; second order: to theta, through
all of (2). With k = 0 it is shared_lora on the query batches. On the target it is LoRA, from theta.

Known of the paper: its abstract, its figure's caption (support sets adapt, query gradients of all tasks are aggregated)
and N of 50 or 100. Ours: n, k, batch sizes, rates, the clips, first order, and that (3) is a mean. alpha is large
because LoRA's gradients are small (grad A = 0 while B = 0): of beta's size it would leave theta_i = theta, and nobody
would notice; `watched` tells. theta_i is never written into theta: a forward pass is called with it in theta's place.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods.base import TARGET_STAGE, Stage
from methods.core.step_plan import StepPlan, plan_micro_batches
from methods.shared_lora import SharedLoRA
from tasks.core.types import Batch, EncodedExample, Episode, UsageError

INNER_OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
NamedParameters = dict[str, Tensor]  # or a theta_i, by the names of the parameters


class TaskUpdate(NamedTuple):
    """What one task contributes to an outer step."""

    gradient: Tensor  # [p] of its query loss
    diagnostics: dict[str, Tensor]  # that loss, and how the inner loop went


class MetaLoRA(SharedLoRA):
    name = "meta_lora"
    paper = "MeTA-LoRA, arXiv:2510.11598; details ours"
    trained_part = (
        "A and B, one for all sources, so that few steps adapt them; on the target the parts in `trainable_on_target`"
    )
    stages = (Stage("source", "sources", "episodes"), TARGET_STAGE)

    @dataclass(frozen=True)
    class Config(SharedLoRA.Config):
        warmup: float = 0.03
        schedule: str = "cosine"
        pool: int = 50  # N
        tasks: int = 4  # n
        inner_steps: int = 3  # k
        inner_lr: float = 0.1  # alpha: of .03 .1 .3 1 the one at which tiny's support loss falls by 10 to 30 %
        inner_clip: float = 1.0  # 0: no clipping
        inner_optimizer: str = "sgd"  # or adamw, with fresh moments for every task and step
        second_order: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.tasks < 1 or self.inner_steps < 0 or self.pool == 1:
                raise UsageError(
                    "method meta_lora: tasks >= 1, inner_steps >= 0 and a pool of 2 or more (0: all), "
                    f"found {self.tasks}, {self.inner_steps}, {self.pool}"
                )
            if self.inner_optimizer not in INNER_OPTIMIZERS:
                raise UsageError(
                    f"method meta_lora: no inner_optimizer {self.inner_optimizer!r}; there are: {', '.join(INNER_OPTIMIZERS)}"
                )
            if self.second_order and self.inner_optimizer != "sgd":
                raise UsageError(
                    "method meta_lora: second_order goes through plain gradient steps; set inner_optimizer to sgd"
                )

    config: Config

    def build(self) -> None:
        if self.config.second_order and (self.backbone.is_sharded or self.backbone.checkpointed_layers):
            raise UsageError(
                "method meta_lora: second_order goes back through earlier passes, which strategy fsdp and "
                "backbone.checkpointing do not keep; set second_order to false"
            )
        super().build()

    def batching_options(self, stage: Stage) -> dict[str, int]:
        c = self.config
        return (
            {"tasks_per_episode": c.tasks, "num_support_batches": c.inner_steps}
            if stage.batch_mode == "episodes"
            else {}
        )

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        super().begin_stage(stage, seeds, train_examples)
        self.automatic_optimization = stage.batch_mode != "episodes"

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not isinstance(batch, Episode):
            return super().on_before_batch_transfer(batch, dataloader_idx)
        support = tuple(tuple(self.split_into_micro_batches(part) for part in own) for own in batch.support)
        return Episode(support, tuple(map(self.split_into_micro_batches, batch.query)))

    def split_into_micro_batches(self, batch: Batch) -> list[StepPlan]:
        """A batch in as many passes as the device's memory asks for, mostly one."""
        return (
            [self.plan_step(batch)]
            if self.num_micro_batches == 1
            else plan_micro_batches(batch, self.num_micro_batches, self.plan_step)
        )

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """An outer step; the losses are those of the queries. On the target a step of LoRA."""
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        if not isinstance(batch, Episode):
            raise UsageError("method meta_lora learns from episodes on the sources: give it Group(tasks, 'episodes')")
        theta = {name: p for part in self.trainable_by_slot().values() for name, p in part.items()}
        own = list(zip(batch.support, batch.query, strict=True))[self.global_rank :: self.trainer.world_size]
        trials = [
            self.compute_task_update(theta, support, query) for support, query in own
        ]  # each process has tasks of its own
        total = torch.stack(
            [torch.zeros_like(flatten_tensors(theta.values())), *(trial.gradient for trial in trials)]
        ).sum(0)
        total = self.trainer.strategy.reduce(total, reduce_op="sum")  # nothing here passes the hooks of DDP
        self.apply_outer_step(theta, total / len(batch.query))
        passed = [(*support, query) for support, query in own]
        return {
            "losses": torch.stack([trial.diagnostics["query"] for trial in trials]) if trials else total[:0],
            "present": tuple(query[0].present_slots[0] for _, query in own),
            "tokens": tuple(sum(plan.num_tokens[0] for batch in batches for plan in batch) for batches in passed),
            "padded": tuple(
                sum(plan.num_padded_tokens[0] for batch in batches for plan in batch) for batches in passed
            ),
            "watched": summarize_updates(trials) if trials else {},
        }

    def apply_outer_step(self, theta: NamedParameters, gradient: Tensor) -> None:
        """(4), with the gradient [p] of all tasks."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        for p, part in zip(theta.values(), gradient.split([p.numel() for p in theta.values()]), strict=True):
            p.grad = part.view_as(p)
        self.configure_gradient_clipping(optimizer)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    def compute_task_update(
        self, theta: NamedParameters, support: Sequence[Sequence[StepPlan]], query: Sequence[StepPlan]
    ) -> TaskUpdate:
        """(2) and a task's part of (3)."""
        second = self.config.second_order
        with sdpa_kernel(SDPBackend.MATH) if second else nullcontext():  # no other kernel is differentiable twice
            own, watched = self.adapt(theta, support)
            loss, found = self.compute_gradient(own, query, theta if second else own)
        return TaskUpdate(flatten_tensors(found), watched | {"query": loss})

    def compute_gradient(
        self,
        adapted: NamedParameters,
        micro_batches: Sequence[StepPlan],
        inputs: NamedParameters,
        create_graph: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """A batch's loss at `own` and its gradient by `of`, pass after pass."""
        losses, found = [], []
        for plan in micro_batches:
            # with second order all passes go back through the inner steps that led to `own`
            keep = create_graph or (self.config.second_order and plan is not micro_batches[-1])
            loss, gradient = functional_call(self, adapted, (plan, [*inputs.values()], create_graph, keep))
            losses.append(loss.detach())
            found.append(gradient)
        return torch.stack(losses).sum(), [sum(each) for each in zip(*found, strict=True)]

    def adapt(
        self, theta: NamedParameters, support: Sequence[Sequence[StepPlan]]
    ) -> tuple[NamedParameters, dict[str, Tensor]]:
        """theta_i^k: a copy of theta, or with second order a function of it."""
        c = self.config
        own = theta if c.second_order else {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
        inner = INNER_OPTIMIZERS[c.inner_optimizer](
            own.values(), lr=c.inner_lr, weight_decay=0.0
        )  # fresh for every task and step
        losses = []
        for batch in support:
            loss, found = self.compute_gradient(own, batch, own, c.second_order)
            found = clip_gradient(found, c.inner_clip)
            if c.second_order:
                own = {name: p - c.inner_lr * g for (name, p), g in zip(own.items(), found, strict=True)}
            else:
                for p, g in zip(own.values(), found, strict=True):
                    p.grad = g
                inner.step()
            losses.append(loss)
        return own, self.compute_diagnostics(theta, own, support, losses)

    @torch.no_grad()
    def compute_diagnostics(
        self,
        theta: NamedParameters,
        adapted: NamedParameters,
        support: Sequence[Sequence[StepPlan]],
        losses: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """How far theta_i^k is from theta, in lengths of theta, and the loss of the first batch at either."""
        if not support:
            return {}
        start = flatten_tensors(theta.values())
        return {
            "moved": (flatten_tensors(adapted.values()) - start).norm() / start.norm(),
            "support_before": losses[0],
            "support_after": torch.stack([functional_call(self, adapted, (plan,))[0] for plan in support[0]]).sum(),
        }

    def forward(
        self, plan: StepPlan, inputs: Sequence[Tensor] = (), create_graph: bool = False, retain_graph: bool = False
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss of one task's batch, or its part of it, and the gradient by `of`.

        Taken in here, while theta_i is in theta's place: under checkpointing the way back computes layers anew.
        """
        loss = self.compute_slot_losses(plan).sum()
        return loss, torch.autograd.grad(
            loss, inputs, create_graph=create_graph, retain_graph=retain_graph
        ) if inputs else ()


def flatten_tensors(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])  # [p]


def clip_gradient(gradient: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """As `clip_grad_norm_` does, but differentiable."""
    if not max_norm:
        return list(gradient)
    norm = torch.stack([g.norm() for g in gradient]).norm()
    return [g * (max_norm / (norm + 1e-6)).clamp(max=1.0) for g in gradient]


def summarize_updates(updates: Sequence[TaskUpdate]) -> dict[str, Tensor]:
    """Means over the tasks of a step; `agreement` is the mean cosine between the gradients of two of them."""
    found = {name: torch.stack([t.diagnostics[name] for t in updates]).mean() for name in updates[0].diagnostics}
    if len(updates) > 1:
        units, n = F.normalize(torch.stack([trial.gradient for trial in updates])), len(updates)
        found["agreement"] = (units.sum(0).square().sum() - n) / (n * (n - 1))
    return found
