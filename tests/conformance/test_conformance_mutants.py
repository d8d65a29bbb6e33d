"""The proofs have power: each fails a method that is wrong in the way it is there to find."""

import pytest
import torch
from torch import Tensor, nn

from methods.attempt import ATTEMPT
from methods.base import Method, OptimizerGroup
from methods.conformance import checks
from methods.conformance.fixtures import copy_backbone_weights
from methods.core.backbone import Backbone
from methods.core.slot_parameters import SlotParameter
from methods.core.step_plan import StepPlan
from methods.core.tensor_cache import TensorVersionCache
from methods.lora import LoRA
from methods.meta_lora import MetaLoRA
from methods.prompt import Prompt
from methods.ta_lora import TALoRA


class StartsNoisy(LoRA):
    """B does not start at zero."""

    def initialize_slot(self, generator, train_examples):
        super().initialize_slot(generator, train_examples)
        for delta in self.deltas.values():
            nn.init.normal_(delta.b.tensors[-1], std=0.01)


class TouchesTheBackbone(LoRA):
    """Leaves a trace in a frozen weight."""

    def initialize_slot(self, generator, train_examples):
        super().initialize_slot(generator, train_examples)
        self.backbone.model.model.norm.weight.data += 1e-3


class JointMean(LoRA):
    """One mean over all answer tokens of a pack: longer cells weigh more."""

    def compute_slot_losses(self, step_plan: StepPlan) -> Tensor:
        return super().compute_slot_losses(
            step_plan._replace(label_weights=torch.full_like(step_plan.label_weights, 1 / len(step_plan.label_ids)))
        )


class JointClipping(LoRA):
    """One gradient norm for the whole pack."""

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], self.config.clip)


class HearsHalf(Prompt):
    """Half of its prompt passes no gradient on."""

    def prompt_embeddings(self, text_embeddings, prompt_mask):
        prompt = super().prompt_embeddings(text_embeddings, prompt_mask)
        return (prompt + prompt.detach()) / 2


class KeepsTheLastPart(LoRA):
    """Forgets what all but the last part of a step came to."""

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad()


class OneSchedule(LoRA):
    """All slots follow the longest slot's schedule."""

    def configure_optimizers(self):
        self.slot_steps = [max(self.slot_steps)] * len(self.slot_steps) if len(self.slot_steps) > 1 else self.slot_steps
        return super().configure_optimizers()


class ForgetsScale(LoRA):
    """Merges without alpha / r."""

    def merged_weights(self, slot=0):
        for delta in self.deltas.values():
            delta.scale /= 2
        return super().merged_weights(slot)


class ExportsAnotherScale(LoRA):
    """Leaves the square root of rsLoRA to chance."""

    def peft_format(self, slot=0):
        config, tensors = super().peft_format(slot)
        return config | {"use_rslora": not config["use_rslora"]}, tensors


class ExportsTheFirst(Prompt):
    """Gives every slot's prompt as the first's."""

    def peft_format(self, slot=0):
        return super().peft_format(0)


class Deaf(LoRA):
    """Its learning rate never applies."""

    def optimizer_group(self, parameter_name):
        return OptimizerGroup(0.0)


class PoolsAnswers(ATTEMPT):
    """Looks at the answer, too, for the text's prompt."""

    def prompt_embeddings(self, text_embeddings, prompt_mask):
        return super().prompt_embeddings(text_embeddings, torch.ones_like(prompt_mask))


class KeepsSomethingAside(TALoRA):
    """Carries the sources' first stage past the stored state."""

    def begin_stage(self, stage, seeds, train_examples=()):
        if stage.name == "source":
            self.aside = self.prompt.tensors[0].detach().clone()
        super().begin_stage(stage, seeds, train_examples)
        if stage.name == "target" and hasattr(self, "aside"):
            for own in self.prompt.tensors:
                own.data.copy_(self.aside)


class KeepsTheFirst(LoRA):
    """Gives every slot's adapter as the first's."""

    def slot_state_dict(self, slot=0):
        return super().slot_state_dict(0)


class AnotherTasksWeights(MetaLoRA):
    """Takes a query's gradient at the weights that the task before came to."""

    def adapt(self, theta, support):
        found = super().adapt(theta, support)
        self.before, found = found, getattr(self, "before", found)
        return found


class StaysAdapted(MetaLoRA):
    """Leaves theta where the last task took it."""

    def adapt(self, theta, support):
        own, watched = super().adapt(theta, support)
        for name, p in theta.items():
            p.data.copy_(own[name])
        return own, watched


class KeepsMomentum(MetaLoRA):
    """Its inner optimiser goes on with what it knows of other tasks."""

    def adapt(self, theta, support):
        own, watched = super().adapt(theta, support)
        moved = {name: (own[name] - p).detach() for name, p in theta.items()}
        known, self.known = getattr(self, "known", moved), moved
        return {name: (tensor + known[name]).detach().requires_grad_() for name, tensor in own.items()}, watched


class SumsTasks(MetaLoRA):
    """The sum of the tasks' gradients."""

    def training_step(self, batch, batch_idx):
        self.count = len(batch.query)
        return super().training_step(batch, batch_idx)

    def apply_outer_step(self, theta, gradient):
        super().apply_outer_step(theta, self.count * gradient)


class SkipsSupport(MetaLoRA):
    """Looks at its support sets and stays where it is."""

    def adapt(self, theta, support):
        return super().adapt(theta, [])


class NeverSteps(MetaLoRA):
    """Its outer rate never applies."""

    def optimizer_group(self, parameter_name):
        return OptimizerGroup(0.0)


@pytest.mark.parametrize(
    ("proof", "wrong"),
    [
        (checks.check_initial_equivalence, StartsNoisy),
        (checks.check_backbone_unchanged, TouchesTheBackbone),
        (checks.check_step_gradient, HearsHalf),
        (checks.check_step_gradient, JointClipping),
        (checks.check_step_gradient, KeepsTheLastPart),
        (checks.check_packing_equivalence, JointMean),
        (checks.check_packing_equivalence, JointClipping),
        (checks.check_packing_equivalence, OneSchedule),
        (checks.check_merge_equivalence, ForgetsScale),
        (checks.check_peft_equivalence, ExportsAnotherScale),
        (checks.check_peft_equivalence, ExportsTheFirst),
        (checks.check_overfitting, Deaf),
        (checks.check_state_round_trip, KeepsTheFirst),
        (checks.check_stage_resumption, KeepsSomethingAside),
        (checks.check_slot_routing, PoolsAnswers),
        (checks.check_cache_equivalence, PoolsAnswers),
        (checks.check_episode_gradient_mean, AnotherTasksWeights),
        (checks.check_episode_gradient_mean, StaysAdapted),
        (checks.check_episode_gradient_mean, KeepsMomentum),
        (checks.check_episode_gradient_mean, SumsTasks),
        (checks.check_episode_gradient_mean, SkipsSupport),
        (checks.check_episode_gradient_mean, NeverSteps),
    ],
    ids=lambda value: value.__name__,
)
def test_a_wrong_method_fails(proof, wrong: type[Method], qwen3: Backbone):
    kept = copy_backbone_weights(qwen3)
    try:
        with pytest.raises(AssertionError):
            proof(wrong, qwen3)
    finally:
        qwen3.detach()
        qwen3.model.load_state_dict(kept)


def every_slot_stacked(bank: SlotParameter) -> Tensor:
    """Absent slots get a gradient of zeros, not none: AdamW moves them by momentum."""
    return (
        torch.stack(list(bank.tensors))[list(bank.slot_context.row_slots)] if len(bank.tensors) > 1 else bank.tensors[0]
    )


def first_for_all(bank: SlotParameter) -> Tensor:
    return bank.tensors[0]


@pytest.mark.parametrize(
    ("proof", "wrong"),
    [(checks.check_absent_slots_unchanged, every_slot_stacked), (checks.check_slot_routing, first_for_all)],
    ids=lambda value: value.__name__,
)
def test_a_wrong_bank_fails(proof, wrong, qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SlotParameter, "forward", wrong)
    with pytest.raises(AssertionError):
        proof(LoRA, qwen3)


def stacked(bank: SlotParameter) -> Tensor:
    """Its gradient comes as views of one tensor, which is that of another bank too where both are added."""
    return torch.stack(
        [bank.tensors[slot] for slot in (bank.slot_context.present_slots if len(bank.tensors) > 1 else (0,))]
    )


def stacked_where_there_are_several(bank: SlotParameter) -> Tensor:
    found = stacked(bank)
    return found if len(found) > 1 else found * 1


@pytest.mark.parametrize("wrong", [stacked, stacked_where_there_are_several], ids=lambda value: value.__name__)
def test_two_gradients_in_the_same_memory_fail(wrong, qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SlotParameter, "stack_present_slots", wrong)
    with pytest.raises(AssertionError, match="have one gradient"):
        checks.check_step_gradient(TALoRA, qwen3)


def test_projecting_one_task_for_all_fails(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SlotParameter, "stack_present_slots", lambda bank: bank.tensors[0][None])
    with pytest.raises(AssertionError):
        checks.check_packing_equivalence(TALoRA, qwen3)


def test_keys_and_values_that_outlive_their_task_fail(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    def stale(memory: TensorVersionCache, key, tensors, make):
        return memory.entries.setdefault(key, make())

    monkeypatch.setattr(TensorVersionCache, "__call__", stale)
    with pytest.raises(AssertionError):
        checks.check_state_round_trip(TALoRA, qwen3)


@pytest.mark.parametrize(
    "proof", [checks.check_padding_invariance, checks.check_cache_equivalence], ids=lambda p: p.__name__
)
def test_positions_that_ignore_the_mask_fail(proof, qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    right = qwen3.compute_hidden_states

    def counted(*, position_ids: Tensor, **given):
        return right(position_ids=torch.arange(position_ids.shape[1]).expand_as(position_ids), **given)

    monkeypatch.setattr(qwen3, "compute_hidden_states", counted)
    with pytest.raises(AssertionError):
        proof(Prompt, qwen3)


def test_a_lead_without_gradient_fails(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    right = Prompt.compute_hidden_states

    def cut(self, input_ids, attention_mask, slots, cache=None, **given):
        found = right(self, input_ids, attention_mask, slots, cache, **given)
        for layer in cache.layers if cache is not None else ():
            layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
        return found

    monkeypatch.setattr(Prompt, "compute_hidden_states", cut)
    with pytest.raises((AssertionError, RuntimeError)):
        checks.check_shared_prefix_equivalence(Prompt, qwen3)
