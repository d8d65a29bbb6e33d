"""MeTA-LoRA: meta-learn one LoRA that a few steps on few examples adapt to a task (arXiv:2510.11598).

  (1)  n tasks without replacement; of each, disjoint S_i and Q_i from its pool of N examples
  (2)  theta_i^0 = theta,  theta_i^{s+1} = theta_i^s - alpha clip(grad L_{B_s}(theta_i^s)),  s < k,  B_s a batch of S_i
  (3)  G = (1/n) sum_i grad L_{Q_i}(theta_i^k)
  (4)  theta <- AdamW(theta, clip(G); beta)

theta: A and B of shared_lora, shared by all sources; r (d_in + d_out) for every linear. (1)-(4) are one step of the
source stage. First order (FOMAML): the gradient in (3) is with respect to theta_i^k; second order: to theta, through
all of (2). With k = 0 it is shared_lora on the query batches. On the target it is LoRA, from theta.

Known from the paper: its abstract, its figure's caption (support sets adapt, query gradients of all tasks are
aggregated) and N of 50 or 100. Our choices: n, k, batch sizes, learning rates, clipping, first order, and the mean in
(3). alpha is large because LoRA's gradients are small (grad A = 0 while B = 0): an alpha of beta's size would silently
leave theta_i at theta, which the logged `moved` shows. theta_i is never written into theta: `functional_call` runs the
forward pass with it.
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
from methods.core.step_plan import StepOutput, StepPlan, plan_micro_batches
from methods.shared_lora import SharedLoRA
from tasks.core.types import Batch, EncodedExample, Episode, UsageError

INNER_OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
NamedParameters = dict[str, Tensor]  # theta or theta_i, by parameter name


class TaskUpdate(NamedTuple):
    """Contribution of one task to an outer step."""

    gradient: Tensor  # [p], gradient of the task's query loss
    diagnostics: dict[str, Tensor]  # query loss and measurements of the inner loop


class MetaLoRA(SharedLoRA):
    """Shared LoRA whose source stage is meta-learning on episodes of tasks."""

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
                    f"method meta_lora: no inner_optimizer {self.inner_optimizer!r}; "
                    f"there are: {', '.join(INNER_OPTIMIZERS)}"
                )
            if self.second_order and self.inner_optimizer != "sgd":
                raise UsageError(
                    "method meta_lora: second_order needs plain gradient steps; set inner_optimizer to sgd"
                )

    config: Config

    def build(self) -> None:
        if self.config.second_order and (self.backbone.is_sharded or self.backbone.checkpointed_layers):
            raise UsageError(
                "method meta_lora: second_order differentiates through earlier forward passes, which strategy fsdp and "
                "backbone.checkpointing do not keep; set second_order to false"
            )
        super().build()

    def batching_options(self, stage: Stage) -> dict[str, int]:
        if stage.batch_mode != "episodes":
            return {}
        return {"tasks_per_episode": self.config.tasks, "num_support_batches": self.config.inner_steps}

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        super().begin_stage(stage, seeds, train_examples)
        self.automatic_optimization = stage.batch_mode != "episodes"

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not isinstance(batch, Episode):
            return super().on_before_batch_transfer(batch, dataloader_idx)
        support = tuple(tuple(map(self.split_into_micro_batches, batches)) for batches in batch.support)
        return Episode(support, tuple(map(self.split_into_micro_batches, batch.query)))

    def split_into_micro_batches(self, batch: Batch) -> list[StepPlan]:
        """Plan a batch as `num_micro_batches` forward passes, usually one."""
        if self.num_micro_batches == 1:
            return [self.plan_step(batch)]
        return plan_micro_batches(batch, self.num_micro_batches, self.plan_step)

    def training_step(self, batch: Any, batch_idx: int) -> StepOutput:
        """Take an outer step on an episode and return the query losses; on the target take a step of LoRA."""
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        if not isinstance(batch, Episode):
            raise UsageError("method meta_lora learns from episodes on the sources: give it Group(tasks, 'episodes')")
        theta = {name: p for part in self.trainable_by_slot().values() for name, p in part.items()}
        tasks = list(zip(batch.support, batch.query, strict=True))
        tasks = tasks[self.global_rank :: self.trainer.world_size]  # the tasks of this process
        updates = [self.compute_task_update(theta, support, query) for support, query in tasks]
        zero = torch.zeros_like(flatten_tensors(theta.values()))
        total = torch.stack([zero, *(update.gradient for update in updates)]).sum(0)
        total = self.trainer.strategy.reduce(total, reduce_op="sum")  # DDP's hooks do not run here
        self.apply_outer_step(theta, total / len(batch.query))
        task_batches = [(*support, query) for support, query in tasks]
        return {
            "losses": torch.stack([update.diagnostics["query"] for update in updates]) if updates else total[:0],
            "present": tuple(query[0].present_slots[0] for _, query in tasks),
            "tokens": tuple(sum(plan.num_tokens[0] for batch in batches for plan in batch) for batches in task_batches),
            "padded": tuple(
                sum(plan.num_padded_tokens[0] for batch in batches for plan in batch) for batches in task_batches
            ),
            "watched": summarize_updates(updates) if updates else {},
        }

    def apply_outer_step(self, theta: NamedParameters, gradient: Tensor) -> None:
        """Equation (4), with the gradient G [p]."""
        optimizer = self.optimizers()
        schedule = self.lr_schedulers()
        for p, p_gradient in zip(theta.values(), gradient.split([p.numel() for p in theta.values()]), strict=True):
            p.grad = p_gradient.view_as(p)
        self.configure_gradient_clipping(optimizer)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    def compute_task_update(
        self, theta: NamedParameters, support: Sequence[Sequence[StepPlan]], query: Sequence[StepPlan]
    ) -> TaskUpdate:
        """Equation (2) and the task's term of (3)."""
        second_order = self.config.second_order
        with sdpa_kernel(SDPBackend.MATH) if second_order else nullcontext():  # the only kernel with second derivatives
            adapted, diagnostics = self.adapt(theta, support)
            loss, gradient = self.compute_gradient(adapted, query, theta if second_order else adapted)
        return TaskUpdate(flatten_tensors(gradient), diagnostics | {"query": loss})

    def compute_gradient(
        self,
        adapted: NamedParameters,
        micro_batches: Sequence[StepPlan],
        inputs: NamedParameters,
        create_graph: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss of a batch at `adapted` and its gradient with respect to `inputs`, summed over the micro-batches."""
        losses = []
        gradients = []
        for plan in micro_batches:
            # with second order every backward pass uses the graph of the inner steps that led to `adapted`
            retain_graph = create_graph or (self.config.second_order and plan is not micro_batches[-1])
            loss, gradient = functional_call(self, adapted, (plan, [*inputs.values()], create_graph, retain_graph))
            losses.append(loss.detach())
            gradients.append(gradient)
        return torch.stack(losses).sum(), [sum(terms) for terms in zip(*gradients, strict=True)]

    def adapt(
        self, theta: NamedParameters, support: Sequence[Sequence[StepPlan]]
    ) -> tuple[NamedParameters, dict[str, Tensor]]:
        """Equation (2): theta_i^k, a copy of theta or with second order a function of it, and the diagnostics."""
        c = self.config
        adapted = theta
        if not c.second_order:
            adapted = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
        # a new optimiser for every task and outer step
        inner = INNER_OPTIMIZERS[c.inner_optimizer](adapted.values(), lr=c.inner_lr, weight_decay=0.0)
        losses = []
        for batch in support:
            loss, gradient = self.compute_gradient(adapted, batch, adapted, c.second_order)
            gradient = clip_gradient(gradient, c.inner_clip)
            if c.second_order:
                adapted = {name: p - c.inner_lr * g for (name, p), g in zip(adapted.items(), gradient, strict=True)}
            else:
                for p, g in zip(adapted.values(), gradient, strict=True):
                    p.grad = g
                inner.step()
            losses.append(loss)
        return adapted, self.compute_diagnostics(theta, adapted, support, losses)

    @torch.no_grad()
    def compute_diagnostics(
        self,
        theta: NamedParameters,
        adapted: NamedParameters,
        support: Sequence[Sequence[StepPlan]],
        losses: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """|theta_i^k - theta| / |theta|, and the loss of the first support batch before and after the inner steps."""
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
        """Loss of one task's micro-batch and its gradient with respect to `inputs`.

        The gradient is computed here, while theta_i replaces theta: with checkpointing the backward pass recomputes
        layers.
        """
        loss = self.compute_slot_losses(plan).sum()
        if not inputs:
            return loss, ()
        return loss, torch.autograd.grad(loss, inputs, create_graph=create_graph, retain_graph=retain_graph)


def flatten_tensors(tensors: Iterable[Tensor]) -> Tensor:
    """All entries in one detached vector [p]."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def clip_gradient(gradient: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """Differentiable form of `clip_grad_norm_`; a `max_norm` of 0 clips nothing."""
    if not max_norm:
        return list(gradient)
    norm = torch.stack([g.norm() for g in gradient]).norm()
    return [g * (max_norm / (norm + 1e-6)).clamp(max=1.0) for g in gradient]


def summarize_updates(updates: Sequence[TaskUpdate]) -> dict[str, Tensor]:
    """Means over the tasks of a step; `agreement` is the mean cosine between the gradients of two tasks."""
    summary = {name: torch.stack([t.diagnostics[name] for t in updates]).mean() for name in updates[0].diagnostics}
    if len(updates) > 1:
        units = F.normalize(torch.stack([update.gradient for update in updates]))  # [n, p]
        n = len(updates)
        summary["agreement"] = (units.sum(0).square().sum() - n) / (n * (n - 1))
    return summary
