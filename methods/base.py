"""What every method is: learned tensors in banks, a last hidden state, and a loss per slot."""

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
from methods.core.step_plan import StepPlan, build_step_plan, partition_step
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
    """Base of all methods; on its own it is the frozen backbone. A backbone carries one method at a time."""

    name: str = "backbone"
    paper: str = ""
    trained_part: str = "nothing"  # what trains, in a few words
    stages: tuple[Stage, ...] = (TARGET_STAGE,)
    dependency: MethodDependency | None = None  # what has to be trained on each source before; `inherit` receives it
    uses_gradient_descent: bool = True  # by steps of gradient descent; where not, it is a control
    target_only_options: tuple[
        str, ...
    ] = ()  # options that only the target stage reads: other values share the source stages
    is_seed_independent: bool = False  # the same number for any shots and seed: one cell per task
    supported_forms: tuple[str, ...] = ("choice", "span")  # of task.form; on any other it has no score
    is_packable: bool = True  # several cells may share a forward pass
    is_mergeable: bool = False  # `merged` can fold what was learned into the backbone's weights
    can_share_prefix: bool = (
        True  # False where virtual tokens depend on the row: no row can use another's keys and values
    )
    betas: tuple[float, float] = (0.9, 0.999)
    num_virtual_tokens: int = 0  # tokens put in front of the text, as embeddings or as keys and values

    Config: TypeAlias = Options
    config: Options

    def __init__(self, backbone: Backbone, config: Options | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        backbone.detach()
        self.backbone, self.slot_context, self._attachment_token = backbone, SlotContext(), backbone.attachment_token
        self.config = config if isinstance(config, self.Config) else self.parse_config(config or {})
        self.num_slots = 1
        self.current_stage: Stage | None = None  # the one at hand; None before the first and after `load`
        self.slot_steps: list[int] = []  # of each slot, set before a fit; its schedule runs on its own
        self.num_micro_batches = 1  # passes of a training step: more where the device has no room for all rows at once
        self.world_size = 1  # processes that take each step together, on the same batches: each its own rows of them
        self.can_share_prefix &= not (
            backbone.is_sharded or backbone.checkpointed_layers
        )  # else a gradient came by keys and values alone
        if getattr(self.config, "dropout", 0) and backbone.checkpointed_layers:
            raise UsageError(
                f"method {self.name}: with checkpointing a second pass would draw other noise; set dropout 0"
            )
        self.build()

    @classmethod
    def parse_config(cls, option_values: Mapping[str, Any]) -> Options:
        """Options by name -> Config; a name that does not exist, or a value of another type, is an error at once."""
        return build_config(cls.Config, option_values, f"method {cls.name}")

    # ---------------------------------------------------------------- what a method writes

    def build(self) -> None:
        """Attach to the backbone. Called once, when no slot exists yet."""

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        """Add one slot to every bank. `draw` is the slot's own stream, `train` its training examples."""

    def load_source_states(self, source_states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over the `adapter` of the parent method on each source, in the order of the source slots."""

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        """Whether this bank learns on the target after a source stage. If not, it stays one for all slots, frozen."""
        return True

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor | None:
        """Virtual tokens before the text, [l, d] or [b, l, d], from its embeddings [b, s, d]; given ones [b, s]."""

    def prefix_key_values(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values before the text, a pair [b, H_kv, l, d_h] per layer."""
        return []

    def budget_fraction(self, stage: Stage) -> float:
        """Of the budget's steps, how many this stage takes; at 0 it is left out."""
        return 1.0

    def batching_options(self, stage: Stage) -> dict[str, int]:
        """What this stage asks of the `Group` it trains on, past the budget."""
        return {}

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """How the parameter of this name learns. Give gates, scalars and norms no decay."""
        return OptimizerGroup(self.config.lr, self.config.weight_decay)

    def predict_without_scoring(self, examples: Sequence[EncodedExample], slots: Sequence[int]) -> list[str] | None:
        """Answers of a method that needs no scoring by the backbone; None: score as usual."""

    def source_diagnostics(self, source_tasks: Sequence[str]) -> dict[str, Any]:
        """What sources taught, for people to look at: by title, a number per layer, or `tasks` x `tasks` of numbers."""
        return {}

    def merged_weights(self, slot: int = 0) -> dict[str, Tensor]:
        """Backbone weights with this slot's adapter folded in, by name."""
        raise UsageError(f"method {self.name} cannot be merged into the backbone's weights")

    def peft_format(self, slot: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """This slot as the peft library has it: its configuration, and tensors by name. None: it has no such method."""

    # ---------------------------------------------------------------- stages

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        """Make room for a slot per seed: fresh ones in the first stage, spread from what was learned in a later one."""
        before = self.stages[self.stages.index(stage) - 1] if stage != self.stages[0] else None
        if before and self.current_stage not in (before, None) and not self.is_loaded:
            raise RuntimeError(f"method {self.name}: stage {stage.name} follows {before.name}; load its result first")
        self.num_slots, self.slot_steps, self.current_stage, self.is_loaded = len(seeds), [], stage, False
        self.slot_context.activate((), self.backbone.device)
        self.slot_context.dropout_generator = None
        banks = self.slot_parameters()
        if not before:
            for bank in banks.values():
                bank.replace([])
            for slot, seed in enumerate(seeds):
                self.initialize_slot(
                    create_generator(seed, stage.name, "start"), train_examples[slot] if train_examples else ()
                )
        elif not all(len(bank.tensors) for bank in banks.values()):
            raise UsageError(f"method {self.name}: stage {stage.name} needs {before.name} trained or loaded first")
        elif (before.trained_on, stage.trained_on) == ("sources", "target"):
            for name, bank in banks.items():
                learns = self.is_trainable_on_target(name)
                bank.broadcast_mean(len(seeds) if learns else 1)
                bank.requires_grad_(learns)
        self.to(self.backbone.device)

    def close(self) -> None:
        """Leave the backbone as it was loaded."""
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
        """Last hidden states [b, s, d] at `input_ids` [b, s]; where only the places `asked` for matter [b, n], theirs.

        `attention_mask` [b, past + s] counts no virtual tokens; they enter with an empty cache (or none) and stay
        unseen. Positions come from the mask. For rows that are no plain sequence: who sees whom, bool [b, s, past + s],
        with `positions` [b, s]. `source` [b, s]: which tokens are given, where not all are (training).
        """
        if self.backbone.attachment_token is not self._attachment_token:
            raise RuntimeError(f"method {self.name} was closed: its backbone was detached or given to another method")
        self.slot_context.activate(slots, input_ids.device)
        if self.backbone.checkpointed_layers:
            self.backbone.checkpointed_layers.restore_context = partial(
                self.slot_context.activate, slots, input_ids.device
            )
        fresh = cache is None or cache.get_seq_length() == 0
        front = None
        if self.num_virtual_tokens:
            attention_mask = F.pad(attention_mask, (self.num_virtual_tokens, 0), value=1)
            if fresh:
                cache = self._add_prefix_to_cache(cache, len(slots))
                embeds = self.backbone.embed(input_ids)
                front = self.prompt_embeddings(
                    embeds, build_prompt_mask(attention_mask, input_ids) if prompt_mask is None else prompt_mask
                )
        ahead = 0 if front is None else front.shape[-2]
        if attention_mask.dim() == 2:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -(input_ids.shape[1] + ahead) :]
        else:
            assert position_ids is not None  # who draws a mask of its own gives them too
            attention_mask, position_ids = extend_attention_pattern(
                attention_mask, position_ids + self.num_virtual_tokens, ahead, self.num_virtual_tokens
            )
        text = {"input_ids": input_ids}
        if front is not None:
            text = {"inputs_embeds": torch.cat([front.to(embeds.dtype).expand(len(slots), -1, -1), embeds], dim=1)}
        query_positions = None if query_positions is None else query_positions + ahead
        hidden = self.backbone.compute_hidden_states(
            **text,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            query_positions=query_positions,
        )
        return hidden[:, ahead:] if ahead and query_positions is None else hidden

    def _add_prefix_to_cache(self, cache: Cache | None, num_rows: int) -> Cache | None:
        for layer, (key, value) in enumerate(self.prefix_key_values()):
            cache = self.backbone.create_cache() if cache is None else cache
            cache.update(key.expand(num_rows, -1, -1, -1), value.expand(num_rows, -1, -1, -1), layer)
        return cache

    def compute_slot_losses(self, step_plan: StepPlan) -> Tensor:
        """Mean cross-entropy of each present slot's own answer tokens [k]; nothing else passes the head.

        Their sum is the loss: in a mixture the tasks of a batch weigh alike, however many rows each has (our choice).
        """
        cache = None
        if step_plan.shared_prefix is not None:
            cache = self.backbone.create_cache()
            first = step_plan.shared_prefix.new_zeros(len(step_plan.shared_prefix), 1)
            self.compute_hidden_states(
                step_plan.shared_prefix,
                step_plan.shared_prefix_mask,
                step_plan.present_slots,
                cache,
                query_positions=first,
            )
            cache.batch_select_indices(step_plan.slot_index)
        rows, seen = step_plan.input_ids, step_plan.attention_mask
        hidden = self.compute_hidden_states(
            rows,
            seen,
            step_plan.slots,
            cache,
            prompt_mask=step_plan.prompt_mask,
            query_positions=step_plan.query_positions,
        )
        logits = self.backbone.compute_logits(hidden.flatten(0, 1)[step_plan.flat_index])
        loss = F.cross_entropy(logits, step_plan.label_ids, reduction="none") * step_plan.label_weights
        return loss.new_zeros(len(step_plan.present_slots)).index_add(0, step_plan.label_slot_index, loss)

    def compute_batch_losses(self, batch: Batch | StepPlan) -> Tensor:
        """The losses [k] of a right-padded batch."""
        return self.compute_slot_losses(batch if isinstance(batch, StepPlan) else self.plan_step(batch))

    def plan_step(self, batch: Batch) -> StepPlan:
        return build_step_plan(batch, num_virtual_tokens=self.num_virtual_tokens, share_prefix=self.can_share_prefix)

    # ---------------------------------------------------------------- Lightning

    def setup(self, stage: str) -> None:
        """In a plain Trainer nobody has entered a stage: then it is the last, with one slot for the task given."""
        if stage == "fit" and self.current_stage is None and not self.is_loaded:
            task = self.trainer.datamodule
            self.begin_stage(self.stages[-1], [0], [task.encode_split("train")] if task else ())

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not isinstance(batch, Batch):
            return batch
        return partition_step(batch, self.plan_step, self.num_micro_batches, self.global_rank, self.world_size)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """The loss of a batch, its plan or its passes, and for the curve each present slot's own and its tokens.

        Of several passes all but the last are taken back here, so that one at a time is in memory.
        """
        passes = batch if isinstance(batch, list) else [batch if isinstance(batch, StepPlan) else self.plan_step(batch)]
        found: dict[int, list[Any]] = {slot: [0.0, 0, 0] for one in passes for slot in one.present_slots}
        if self.num_micro_batches > 1:
            self.zero_grad()
        for one in passes:
            losses = self.compute_slot_losses(one)
            for slot, *own in zip(
                one.present_slots, losses.detach(), one.num_tokens, one.num_padded_tokens, strict=True
            ):
                found[slot] = [old + new for old, new in zip(found[slot], own, strict=True)]
            if one is not passes[-1]:
                losses.sum().backward()
        each, tokens, padded = zip(*found.values(), strict=True)
        return {
            "loss": losses.sum() * self.world_size,  # whose mean is taken of as many gradients
            "losses": torch.stack(each),
            "present": tuple(found),
            "tokens": tokens,
            "padded": padded,
        }

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Lightning calls this after `training_step`, when a step in parts has most of its gradient already."""
        if self.num_micro_batches == 1:
            optimizer.zero_grad()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a group for each slot and rate; a slot's schedule runs on its own number of steps."""
        groups: dict[tuple[int | None, OptimizerGroup], list[nn.Parameter]] = {}
        owned = self.trainable_by_slot()
        self._clipping_groups = [list(parameters.values()) for parameters in owned.values()]
        for slot, parameters in owned.items():
            for name, parameter in parameters.items():
                groups.setdefault((slot, self.optimizer_group(name)), []).append(parameter)
        steps = self.slot_steps or [int(self.trainer.estimated_stepping_batches)] * self.num_slots
        totals = [max(steps) if slot is None else steps[slot] for slot, _ in groups]
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": rate.lr, "weight_decay": rate.weight_decay} for (_, rate), p in groups.items()],
            betas=self.betas,
            fused=True,
        )
        paces = [
            lambda done, total=total, rests=rate.frozen_during_warmup: self.lr_multiplier(done, total, rests)
            for total, (_, rate) in zip(totals, groups, strict=True)
        ]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, paces)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_multiplier(self, completed_steps: int, total_steps: int, frozen_during_warmup: bool = False) -> float:
        """Share of the full learning rate after `done` of `total` steps."""
        warm = ceil(self.config.warmup * total_steps)
        if completed_steps < warm:
            return 0.0 if frozen_during_warmup else (completed_steps + 1) / (warm + 1)
        share = min(1.0, (completed_steps - warm) / max(1, total_steps - warm))
        return {"linear": 1 - share, "cosine": (1 + cos(pi * share)) / 2, "constant": 1.0}[self.config.schedule]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Each slot alone, so that its step does not depend on who shares the batch."""
        if not self.config.clip:
            return
        for parameters in self._clipping_groups:
            found = [p for p in parameters if p.grad is not None]
            if found:
                nn.utils.clip_grad_norm_(found, self.config.clip, foreach=True)
