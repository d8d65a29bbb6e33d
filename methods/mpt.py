"""MPT: one shared prompt, modulated for each task by a low-rank matrix (Wang et al. 2023, arXiv:2303.02861).

  P_k = P* o (u_k v_k)                                                       (o: elementwise)
  sources:  L = CE + lambda (KL(p_teacher || p) + mean squared distance of hidden states);   target:  L = CE

P* [l, d] is shared by all sources; u_k [l, r] and v_k [r, d] belong to task k. The teachers are the sources' prompts
from prompt tuning, frozen and not saved. A target starts from P*, the mean of the u_k and the mean of the v_k (not of
their products) and trains all three, or, with `trainable_on_target: u v`, only the last two. Trained: l d + r (l + d)
numbers for a target, l d + T r (l + d) with T sources. The paper was not available to us, so equations have no numbers.

Our choices: KL is the mean over answer tokens at temperature 1, over the whole vocabulary; hidden states are compared
after the final norm, at text positions only, because those before it have huge outliers. P* is initialised to the mean
of the teachers; u and v to 1 in the first rank, in further ranks to N(0, 0.02) and 0, so that initially P_k = P* (with
N(0, 0.02) throughout, as in peft, P_k would be near 0). u and v have entries of size 1, so their learning rate does not
scale with the embedding. A batch is drawn from all sources, as for every method here, not from a random subset of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup, SlotParameter
from methods.core.config import validate_choices
from methods.core.step_plan import StepPlan, build_step_plan
from methods.prompt import SOURCE_PROMPTS, Prompt, stack_source_prompts
from tasks.core.types import Batch, EncodedExample, UsageError


class MPT(Prompt):
    """Multitask prompt tuning: distil the sources' prompts into one, then adapt it to the target."""

    name = "mpt"
    paper = "Wang et al. 2023, arXiv:2303.02861"
    trained_part = (
        "virtual tokens, one for all sources, times each task's u v; on the target the parts in `trainable_on_target`"
    )
    stages = (SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target",)
    dependency = SOURCE_PROMPTS

    @dataclass(frozen=True)
    class Config(Prompt.Config):
        weight_decay: float = 1e-5
        warmup: float = 0.1
        rank: int = 1
        factor_lr: float = 1e-2  # of u and v
        distillation_weight: float = 0.9  # lambda
        trainable_on_target: str = "prompt u v"  # names of the parameters that are trained on the target

        def __post_init__(self) -> None:
            super().__post_init__()
            validate_choices(self.trainable_on_target, ("prompt", "u", "v"), "method mpt: target")
            if self.rank < 1 or self.distillation_weight < 0:
                raise UsageError(
                    f"method mpt: rank >= 1 and distillation_weight >= 0, found {self.rank}, {self.distillation_weight}"
                )

    config: Config
    teacher_prompts: Tensor | None = None  # [S, l, d], in the order of the source slots
    is_teacher_pass = False

    def build(self) -> None:
        super().build()
        self.prompt.is_shared = True
        self.u = SlotParameter(self.slot_context)  # u_k [l, r] of each slot
        self.v = SlotParameter(self.slot_context)  # v_k [r, d] of each slot

    def load_source_states(self, source_states: Sequence[Mapping[str, Tensor]]) -> None:
        self.teacher_prompts = stack_source_prompts(source_states, self)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        if self.teacher_prompts is None or len(self.teacher_prompts) != self.num_slots:
            count = 0 if self.teacher_prompts is None else len(self.teacher_prompts)
            raise UsageError(f"method mpt: {self.num_slots} sources need as many teachers (inherit), found {count}")
        self.prompt.add_slot(self.teacher_prompts.mean(0))
        u = torch.empty(self.num_virtual_tokens, self.config.rank).normal_(0, 0.02, generator=generator)
        u[:, 0] = 1
        v = torch.zeros(self.config.rank, self.backbone.hidden_size)
        v[0] = 1
        self.u.add_slot(u)
        self.v.add_slot(v)

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor:
        if self.is_teacher_pass:
            return self.teacher_prompts[list(self.slot_context.row_slots)]
        return self.prompt() * (self.u() @ self.v())

    def plan_step(self, batch: Batch) -> StepPlan:
        """Plan whole rows without a shared prefix while distilling: hidden states are compared at every position."""
        return build_step_plan(batch, num_virtual_tokens=self.num_virtual_tokens, share_prefix=not self.is_distilling)

    @property
    def is_distilling(self) -> bool:
        """Whether the current stage adds the distillation terms to the loss."""
        return self.current_stage == SOURCE_STAGE and self.config.distillation_weight > 0

    def compute_slot_losses(self, step_plan: StepPlan) -> Tensor:
        if not self.is_distilling:
            return super().compute_slot_losses(step_plan)
        student = self.compute_hidden_states(
            step_plan.input_ids, step_plan.attention_mask, step_plan.slots, prompt_mask=step_plan.prompt_mask
        ).float()  # [b, s, d]
        teacher = self.compute_teacher_states(step_plan)
        logits, teacher_logits = (
            self.backbone.compute_logits(hidden.flatten(0, 1)[step_plan.label_positions])
            for hidden in (student, teacher)
        )  # [n, v]
        kl = F.kl_div(logits.log_softmax(-1), teacher_logits.log_softmax(-1), reduction="none", log_target=True).sum(-1)
        weight = self.config.distillation_weight  # lambda
        token_losses = F.cross_entropy(logits, step_plan.label_ids, reduction="none") + weight * kl  # [n]
        distances = ((student - teacher).square().mean(-1) * step_plan.attention_mask).sum(1)  # [b]
        distances = distances * step_plan.inv_token_count[step_plan.slot_index]
        losses = token_losses.new_zeros(len(step_plan.present_slots)).index_add(
            0, step_plan.label_slot_index, token_losses * step_plan.label_weights
        )
        return losses.index_add(0, step_plan.slot_index, weight * distances)

    @torch.no_grad()
    def compute_teacher_states(self, plan: StepPlan) -> Tensor:
        """Hidden states [b, s, d] with the teacher prompt of each row's source."""
        self.is_teacher_pass = True
        try:
            return self.compute_hidden_states(
                plan.input_ids, plan.attention_mask, plan.slots, prompt_mask=plan.prompt_mask
            ).float()
        finally:
            self.is_teacher_pass = False

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return parameter_name in self.config.trainable_on_target.split()

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        if parameter_name.startswith("prompt."):
            return super().optimizer_group(parameter_name)
        return OptimizerGroup(self.config.factor_lr)  # no weight decay on u and v
