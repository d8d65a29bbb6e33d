"""Base class of all methods: parameters per slot, the forward pass, the loss per slot and the Lightning hooks.

Shapes: b rows of s tokens, k slots in a batch, n answer tokens, l virtual tokens, width d, H_kv key and value heads of
size d_h.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil, cos, pi
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache

from methods.core.backbone import Backbone
from methods.core.config import MethodConfig as Options
from methods.core.config import build_config
from methods.core.masks import build_prompt_mask, extend_attention_pattern
from methods.core.seeding import create_generator
from methods.core.slot_parameters import SlotContext, SlotParameter
from methods.core.stages import SOURCE_STAGE, TARGET_STAGE, MethodDependency, OptimizerGroup, Stage
from methods.core.state import SlotModule
from methods.core.step_plan import StepOutput, StepPlan, build_step_plan, partition_step
from tasks.core.types import Batch, EncodedExample, UsageError

__all__ = [
    "SOURCE_STAGE",
    "TARGET_STAGE",
    "SlotParameter",
    "Method",
    "MethodDependency",
    "OptimizerGroup",
    "SlotContext",
    "Stage",
    "create_generator",
]


class Method(SlotModule):
    """Base of all methods; on its own it is the frozen backbone.

    A backbone carries one method at a time: creating a method detaches the previous one. Raises UsageError for invalid
    options.
    """

    name: str = "backbone"
    paper: str = ""
    trained_part: str = "nothing"  # short description of the trained parameters
    stages: tuple[Stage, ...] = (TARGET_STAGE,)
    dependency: MethodDependency | None = None  # trained on each source first; see `load_source_states`
    uses_gradient_descent: bool = True  # False for control methods, which take no gradient steps
    # options that only the target stage reads: cells that differ in these alone share their source stages
    target_only_options: tuple[str, ...] = ()
    is_seed_independent: bool = False  # the score is the same for all shots and seeds: one cell per task
    supported_forms: tuple[str, ...] = ("choice", "span")  # values of `task.form` that the method can answer
    is_packable: bool = True  # several cells may share a forward pass
    has_exact_gradient: bool = True  # False: the method holds a part constant in the backward pass, by design
    is_mergeable: bool = False  # `merged_weights` can fold the adapter into the backbone's weights
    # False where virtual tokens depend on the row: rows cannot share the keys and values of a common prefix
    can_share_prefix: bool = True
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    num_virtual_tokens: int = 0  # tokens prepended to the text, as embeddings or as keys and values

    Config: TypeAlias = Options
    config: Options

    def __init__(self, backbone: Backbone, config: Options | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        backbone.detach()
        self.backbone = backbone
        self.slot_context = SlotContext()
        self._attachment_token = backbone.attachment_token
        self.config = config if isinstance(config, self.Config) else self.parse_config(config or {})
        self.num_slots = 1
        self.current_stage: Stage | None = None  # None before the first stage
        self.slot_steps: list[int] = []  # training steps of each slot, set before a fit; each slot has its own schedule
        self.num_micro_batches = 1  # forward passes per training step: more than 1 if a whole batch exceeds the memory
        self.world_size = 1  # data-parallel processes: each takes its own rows of the same batch
        # sharded or checkpointed layers cannot take a gradient that arrives through keys and values alone
        if backbone.is_sharded or backbone.checkpointed_layers:
            self.can_share_prefix = False
        if getattr(self.config, "dropout", 0) and backbone.checkpointed_layers:
            raise UsageError(
                f"method {self.name}: dropout is not supported with checkpointing (the mask would differ in the "
                "recomputed forward pass); set dropout 0"
            )
        self.build()

    @classmethod
    def parse_config(cls, option_values: Mapping[str, Any]) -> Options:
        """Build the method's Config from option values. Raises UsageError for an unknown name or an invalid value."""
        return build_config(cls.Config, option_values, f"method {cls.name}")

    # ---------------------------------------------------------------- methods that subclasses override

    def build(self) -> None:
        """Attach modules to the backbone. Called once, before any slot exists."""

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        """Add one slot to every `SlotParameter`, from the slot's own random generator and its training examples."""

    def load_source_states(self, source_states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over the dependency's `slot_state_dict` on each source, in the order of the source slots."""

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        """Whether this SlotParameter is trained on the target after a source stage.

        If not, the target stage keeps it frozen, as one tensor for all slots.
        """
        return True

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor | None:
        """Embeddings of the virtual tokens, [l, d] or [b, l, d]; None if the method has none.

        `text_embeddings` [b, s, d]; `prompt_mask` [b, s] bool marks the prompt's tokens (no answer, no padding).
        """

    def prefix_key_values(self) -> list[tuple[Tensor, Tensor]]:
        """Prefix keys and values prepended to the cache, one pair [b or 1, H_kv, l, d_h] per layer."""
        return []

    def budget_fraction(self, stage: Stage) -> float:
        """Fraction of the budget's steps that this stage takes; at 0 the stage is skipped."""
        return 1.0

    def batching_options(self, stage: Stage) -> dict[str, int]:
        """Extra keyword arguments for the stage's `MultiTaskDataModule`, beyond the budget."""
        return {}

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """Learning rate and weight decay of a parameter. Gates, scalars and norms should have no decay."""
        return OptimizerGroup(self.config.lr, self.config.weight_decay)

    def predict_without_scoring(self, examples: Sequence[EncodedExample], slots: Sequence[int]) -> list[str] | None:
        """Answers of a method that does not use the backbone's scores; None: score with the backbone."""

    def source_diagnostics(self, source_tasks: Sequence[str]) -> dict[str, Any]:
        """Diagnostics of the source stage by title: a number per layer, or a `source_tasks` x `source_tasks` matrix."""
        return {}

    def merged_weights(self, slot: int = 0) -> dict[str, Tensor]:
        """Backbone weights with this slot's adapter folded in, by name. Raises UsageError if that is not possible."""
        raise UsageError(f"method {self.name} cannot be merged into the backbone's weights")

    def peft_format(self, slot: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """This slot in peft's format: configuration and tensors by name. None if peft has no such method."""

    # ---------------------------------------------------------------- stages

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        """Prepare a stage with one slot per seed.

        The first stage initialises the slots; a target stage after a source stage copies the mean over the sources into
        every slot. Raises RuntimeError if the stages are out of order, UsageError if the previous one was not trained.
        """
        previous = None
        if stage != self.stages[0]:
            previous = self.stages[self.stages.index(stage) - 1]
        if previous and self.current_stage not in (previous, None) and not self.is_loaded:
            raise RuntimeError(f"method {self.name}: stage {stage.name} follows {previous.name}; load its result first")
        self.num_slots = len(seeds)
        self.slot_steps = []
        self.current_stage = stage
        self.is_loaded = False
        self.slot_context.activate((), self.backbone.device)
        self.slot_context.dropout_generator = None
        slot_parameters = self.slot_parameters()
        if not previous:
            for slot_parameter in slot_parameters.values():
                slot_parameter.replace([])
            for slot, seed in enumerate(seeds):
                self.initialize_slot(
                    create_generator(seed, stage.name, "start"), train_examples[slot] if train_examples else ()
                )
        elif not all(len(slot_parameter.tensors) for slot_parameter in slot_parameters.values()):
            raise UsageError(f"method {self.name}: stage {stage.name} needs {previous.name} trained or loaded first")
        elif previous.trained_on == "sources" and stage.trained_on == "target":
            for name, slot_parameter in slot_parameters.items():
                is_trainable = self.is_trainable_on_target(name)
                slot_parameter.broadcast_mean(len(seeds) if is_trainable else 1)
                slot_parameter.requires_grad_(is_trainable)
        self.to(self.backbone.device)

    def close(self) -> None:
        """Detach from the backbone, which is restored to its loaded state."""
        self.backbone.detach()

    # ---------------------------------------------------------------- forward

    def compute_hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        slots: tuple[int, ...],
        cache: Cache | None = None,
        *,
        position_ids: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [b, s, d] at `input_ids` [b, s], or [b, n, d] at the `query_positions` [b, n].

        `slots` [b] names the slot of each row. `attention_mask` [b, past + s] does not include virtual tokens: they are
        prepended when the cache is empty or None, and are not part of the result. Position ids are derived from this
        mask. For rows that are not a plain sequence, `attention_mask` is an attention pattern, bool [b, s, past + s],
        and `position_ids` [b, s] is required. `prompt_mask` [b, s]: the prompt's tokens; by default all tokens.
        Raises RuntimeError if the method was closed.
        """
        if self.backbone.attachment_token is not self._attachment_token:
            raise RuntimeError(f"method {self.name} was closed: its backbone was detached or given to another method")
        self.slot_context.activate(slots, input_ids.device)
        if self.backbone.checkpointed_layers:
            self.backbone.checkpointed_layers.restore_context = partial(
                self.slot_context.activate, slots, input_ids.device
            )
        is_cache_empty = cache is None or cache.get_seq_length() == 0
        virtual_embeddings = None
        if self.num_virtual_tokens:
            attention_mask = F.pad(attention_mask, (self.num_virtual_tokens, 0), value=1)
            if is_cache_empty:
                cache = self._add_prefix_to_cache(cache, len(slots))
                text_embeddings = self.backbone.embed(input_ids)
                if prompt_mask is None:
                    prompt_mask = build_prompt_mask(attention_mask, input_ids)
                virtual_embeddings = self.prompt_embeddings(text_embeddings, prompt_mask)
        num_prepended = 0 if virtual_embeddings is None else virtual_embeddings.shape[-2]
        if attention_mask.dim() == 2:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -(input_ids.shape[1] + num_prepended) :]
        else:
            assert position_ids is not None  # required together with an attention pattern
            attention_mask, position_ids = extend_attention_pattern(
                attention_mask, position_ids + self.num_virtual_tokens, num_prepended, self.num_virtual_tokens
            )
        inputs = {"input_ids": input_ids}
        if virtual_embeddings is not None:
            virtual_embeddings = virtual_embeddings.to(text_embeddings.dtype).expand(len(slots), -1, -1)
            inputs = {"inputs_embeds": torch.cat([virtual_embeddings, text_embeddings], dim=1)}
        if query_positions is not None:
            query_positions = query_positions + num_prepended
        hidden = self.backbone.compute_hidden_states(
            **inputs,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            query_positions=query_positions,
        )
        return hidden[:, num_prepended:] if num_prepended and query_positions is None else hidden

    def _add_prefix_to_cache(self, cache: Cache | None, num_rows: int) -> Cache | None:
        """Append the prefix keys and values to the cache, which is created if there are any and it is None."""
        for layer, (key, value) in enumerate(self.prefix_key_values()):
            cache = self.backbone.create_cache() if cache is None else cache
            cache.update(key.expand(num_rows, -1, -1, -1), value.expand(num_rows, -1, -1, -1), layer)
        return cache

    def compute_slot_losses(self, step_plan: StepPlan) -> Tensor:
        """Mean cross-entropy over the answer tokens of each present slot [k].

        Only answer positions pass the output head. The sum over slots is the training loss: in a mixture every task of
        a batch has the same weight, however many rows it has (our choice).
        """
        cache = None
        if step_plan.shared_prefix is not None:
            cache = self.backbone.create_cache()
            first_position = step_plan.shared_prefix.new_zeros(len(step_plan.shared_prefix), 1)
            self.compute_hidden_states(
                step_plan.shared_prefix,
                step_plan.shared_prefix_mask,
                step_plan.present_slots,
                cache,
                query_positions=first_position,  # only keys and values are needed
            )
            cache.batch_select_indices(step_plan.slot_index)
        hidden = self.compute_hidden_states(
            step_plan.input_ids,
            step_plan.attention_mask,
            step_plan.slots,
            cache,
            prompt_mask=step_plan.prompt_mask,
            query_positions=step_plan.query_positions,
        )
        logits = self.backbone.compute_logits(hidden.flatten(0, 1)[step_plan.flat_index])
        loss = F.cross_entropy(logits, step_plan.label_ids, reduction="none") * step_plan.label_weights
        return loss.new_zeros(len(step_plan.present_slots)).index_add(0, step_plan.label_slot_index, loss)

    def compute_batch_losses(self, batch: Batch | StepPlan) -> Tensor:
        """Loss of each present slot [k], for a right-padded batch or its step plan."""
        return self.compute_slot_losses(batch if isinstance(batch, StepPlan) else self.plan_step(batch))

    def plan_step(self, batch: Batch) -> StepPlan:
        """Step plan of a right-padded batch."""
        return build_step_plan(batch, num_virtual_tokens=self.num_virtual_tokens, share_prefix=self.can_share_prefix)

    # ---------------------------------------------------------------- Lightning

    def setup(self, stage: str) -> None:
        """Begin the last stage with one slot if no stage has begun, as when the method is used in a plain Trainer."""
        if stage == "fit" and self.current_stage is None and not self.is_loaded:
            task = self.trainer.datamodule
            self.begin_stage(self.stages[-1], [0], [task.encode_split("train")] if task else ())

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Replace a batch by its step plan (or the plans of its micro-batches) before it moves to the device."""
        if not isinstance(batch, Batch):
            return batch
        return partition_step(batch, self.plan_step, self.num_micro_batches, self.global_rank, self.world_size)

    def training_step(self, batch: Any, batch_idx: int) -> StepOutput:
        """Loss of a batch, a step plan or a list of micro-batch plans.

        Also returns what the history records: the loss, tokens and padded tokens of each present slot. All but the last
        micro-batch run their backward pass here, so that the activations of only one are in memory.
        """
        if isinstance(batch, list):
            micro_batches = batch
        elif isinstance(batch, StepPlan):
            micro_batches = [batch]
        else:
            micro_batches = [self.plan_step(batch)]
        totals: dict[int, list[Any]] = {slot: [0.0, 0, 0] for plan in micro_batches for slot in plan.present_slots}
        if self.num_micro_batches > 1:
            self.zero_grad()
        for plan in micro_batches:
            losses = self.compute_slot_losses(plan)
            for slot, *counts in zip(
                plan.present_slots, losses.detach(), plan.num_tokens, plan.num_padded_tokens, strict=True
            ):
                totals[slot] = [old + new for old, new in zip(totals[slot], counts, strict=True)]
            if plan is not micro_batches[-1]:
                losses.sum().backward()
        slot_losses, tokens, padded = zip(*totals.values(), strict=True)
        return {
            "loss": losses.sum() * self.world_size,  # DDP divides the summed gradients by `world_size`
            "losses": torch.stack(slot_losses),
            "present": tuple(totals),
            "tokens": tokens,
            "padded": padded,
        }

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Zero the gradients, unless a step has several micro-batches.

        Lightning calls this after `training_step`, when all micro-batches but the last have added their gradients;
        `training_step` zeroes them in that case.
        """
        if self.num_micro_batches == 1:
            optimizer.zero_grad()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a parameter group per slot and optimizer group; each slot has a schedule over its own steps."""
        groups: dict[tuple[int | None, OptimizerGroup], list[nn.Parameter]] = {}
        trainable = self.trainable_by_slot()
        self._clipping_groups = [list(parameters.values()) for parameters in trainable.values()]
        for slot, parameters in trainable.items():
            for name, parameter in parameters.items():
                groups.setdefault((slot, self.optimizer_group(name)), []).append(parameter)
        slot_steps = self.slot_steps or [int(self.trainer.estimated_stepping_batches)] * self.num_slots
        total_steps = [max(slot_steps) if slot is None else slot_steps[slot] for slot, _ in groups]
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": group.lr, "weight_decay": group.weight_decay} for (_, group), p in groups.items()],
            betas=self.betas,
            fused=True,
        )
        lr_lambdas = [
            lambda step, total=total, frozen=group.frozen_during_warmup: self.lr_multiplier(step, total, frozen)
            for total, (_, group) in zip(total_steps, groups, strict=True)
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambdas)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_multiplier(self, completed_steps: int, total_steps: int, frozen_during_warmup: bool = False) -> float:
        """Factor of the learning rate after `completed_steps` of `total_steps`, from 0 to 1: warm-up, then decay."""
        warmup_steps = ceil(self.config.warmup * total_steps)
        if completed_steps < warmup_steps:
            return 0.0 if frozen_during_warmup else (completed_steps + 1) / (warmup_steps + 1)
        progress = min(1.0, (completed_steps - warmup_steps) / max(1, total_steps - warmup_steps))
        return {"linear": 1 - progress, "cosine": (1 + cos(pi * progress)) / 2, "constant": 1.0}[self.config.schedule]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the gradient norm of each slot separately, so that a step does not depend on the batch's other slots."""
        if not self.config.clip:
            return
        for parameters in self._clipping_groups:
            with_gradient = [p for p in parameters if p.grad is not None]
            if with_gradient:
                nn.utils.clip_grad_norm_(with_gradient, self.config.clip, foreach=True)
