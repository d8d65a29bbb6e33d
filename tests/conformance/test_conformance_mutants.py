"""The proofs have power: each fails a method that is wrong in the way it is there to find."""

import pytest
import torch
from torch import Tensor, nn

from benchmark.proofs import kit
from benchmark.proofs.material import weights
from methods.attempt import ATTEMPT
from methods.backbone import Backbone
from methods.bank import Bank, Memory
from methods.base import Method, Rate
from methods.lora import LoRA
from methods.meta_lora import MetaLoRA
from methods.plan import Plan
from methods.prompt import Prompt
from methods.ta_lora import TALoRA


class StartsNoisy(LoRA):
    """B does not start at zero."""

    def start(self, draw, train):
        super().start(draw, train)
        for delta in self.deltas.values():
            nn.init.normal_(delta.b.sets[-1], std=0.01)


class TouchesTheBackbone(LoRA):
    """Leaves a trace in a frozen weight."""

    def start(self, draw, train):
        super().start(draw, train)
        self.backbone.model.model.norm.weight.data += 1e-3


class JointMean(LoRA):
    """One mean over all answer tokens of a pack: longer cells weigh more."""

    def losses(self, plan: Plan) -> Tensor:
        return super().losses(plan._replace(weight=torch.full_like(plan.weight, 1 / len(plan.target))))


class JointClipping(LoRA):
    """One gradient norm for the whole pack."""

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], self.config.clip)


class HearsHalf(Prompt):
    """Half of its prompt passes no gradient on."""

    def front(self, embeds, source):
        prompt = super().front(embeds, source)
        return (prompt + prompt.detach()) / 2


class KeepsTheLastPart(LoRA):
    """Forgets what all but the last part of a step came to."""

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad()


class OneSchedule(LoRA):
    """All slots follow the longest slot's schedule."""

    def configure_optimizers(self):
        self.steps = [max(self.steps)] * len(self.steps) if len(self.steps) > 1 else self.steps
        return super().configure_optimizers()


class ForgetsScale(LoRA):
    """Merges without alpha / r."""

    def merged(self, slot=0):
        for delta in self.deltas.values():
            delta.scale /= 2
        return super().merged(slot)


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

    def rate(self, name):
        return Rate(0.0)


class PoolsAnswers(ATTEMPT):
    """Looks at the answer, too, for the text's prompt."""

    def front(self, embeds, source):
        return super().front(embeds, torch.ones_like(source))


class KeepsSomethingAside(TALoRA):
    """Carries the sources' first stage past the stored state."""

    def enter(self, stage, seeds, train=()):
        if stage.name == "source":
            self.aside = self.prompt.sets[0].detach().clone()
        super().enter(stage, seeds, train)
        if stage.name == "target" and hasattr(self, "aside"):
            for own in self.prompt.sets:
                own.data.copy_(self.aside)


class KeepsTheFirst(LoRA):
    """Gives every slot's adapter as the first's."""

    def adapter(self, slot=0):
        return super().adapter(0)


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

    def rate(self, name):
        return Rate(0.0)


@pytest.mark.parametrize(
    ("proof", "wrong"),
    [
        (kit.starts_as_the_backbone, StartsNoisy),
        (kit.leaves_the_backbone_alone, TouchesTheBackbone),
        (kit.a_step_follows_the_gradient, HearsHalf),
        (kit.a_step_follows_the_gradient, JointClipping),
        (kit.a_step_follows_the_gradient, KeepsTheLastPart),
        (kit.packed_equals_solo, JointMean),
        (kit.packed_equals_solo, JointClipping),
        (kit.packed_equals_solo, OneSchedule),
        (kit.merging_changes_nothing, ForgetsScale),
        (kit.peft_computes_the_same, ExportsAnotherScale),
        (kit.peft_computes_the_same, ExportsTheFirst),
        (kit.learns_by_heart, Deaf),
        (kit.what_was_learned_is_all_there_is, KeepsTheFirst),
        (kit.a_stored_stage_goes_on_as_if_never_stored, KeepsSomethingAside),
        (kit.rows_get_their_own_slot, PoolsAnswers),
        (kit.a_cache_changes_nothing, PoolsAnswers),
        (kit.tasks_of_an_episode_meet_in_their_mean, AnotherTasksWeights),
        (kit.tasks_of_an_episode_meet_in_their_mean, StaysAdapted),
        (kit.tasks_of_an_episode_meet_in_their_mean, KeepsMomentum),
        (kit.tasks_of_an_episode_meet_in_their_mean, SumsTasks),
        (kit.tasks_of_an_episode_meet_in_their_mean, SkipsSupport),
        (kit.tasks_of_an_episode_meet_in_their_mean, NeverSteps),
    ],
    ids=lambda value: value.__name__,
)
def test_a_wrong_method_fails(proof, wrong: type[Method], qwen3: Backbone):
    kept = weights(qwen3)
    try:
        with pytest.raises(AssertionError):
            proof(wrong, qwen3)
    finally:
        qwen3.detach()
        qwen3.model.load_state_dict(kept)


def every_slot_stacked(bank: Bank) -> Tensor:
    """Absent slots get a gradient of zeros, not none: AdamW moves them by momentum."""
    return torch.stack(list(bank.sets))[list(bank.rows.slots)] if len(bank.sets) > 1 else bank.sets[0]


def first_for_all(bank: Bank) -> Tensor:
    return bank.sets[0]


@pytest.mark.parametrize(
    ("proof", "wrong"),
    [(kit.absent_slots_keep_still, every_slot_stacked), (kit.rows_get_their_own_slot, first_for_all)],
    ids=lambda value: value.__name__,
)
def test_a_wrong_bank_fails(proof, wrong, qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bank, "forward", wrong)
    with pytest.raises(AssertionError):
        proof(LoRA, qwen3)


def stacked(bank: Bank) -> Tensor:
    """Its gradient comes as views of one tensor, which is that of another bank too where both are added."""
    return torch.stack([bank.sets[slot] for slot in (bank.rows.present if len(bank.sets) > 1 else (0,))])


def stacked_where_there_are_several(bank: Bank) -> Tensor:
    found = stacked(bank)
    return found if len(found) > 1 else found * 1


@pytest.mark.parametrize("wrong", [stacked, stacked_where_there_are_several], ids=lambda value: value.__name__)
def test_two_gradients_in_the_same_memory_fail(wrong, qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bank, "present", wrong)
    with pytest.raises(AssertionError, match="have one gradient"):
        kit.a_step_follows_the_gradient(TALoRA, qwen3)


def test_projecting_one_task_for_all_fails(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bank, "present", lambda bank: bank.sets[0][None])
    with pytest.raises(AssertionError):
        kit.packed_equals_solo(TALoRA, qwen3)


def test_keys_and_values_that_outlive_their_task_fail(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    def stale(memory: Memory, key, tensors, make):
        return memory.kept.setdefault(key, make())

    monkeypatch.setattr(Memory, "__call__", stale)
    with pytest.raises(AssertionError):
        kit.what_was_learned_is_all_there_is(TALoRA, qwen3)


@pytest.mark.parametrize("proof", [kit.padding_changes_nothing, kit.a_cache_changes_nothing], ids=lambda p: p.__name__)
def test_positions_that_ignore_the_mask_fail(proof, qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    right = qwen3.hidden

    def counted(*, position_ids: Tensor, **given):
        return right(position_ids=torch.arange(position_ids.shape[1]).expand_as(position_ids), **given)

    monkeypatch.setattr(qwen3, "hidden", counted)
    with pytest.raises(AssertionError):
        proof(Prompt, qwen3)


def test_a_lead_without_gradient_fails(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    right = Prompt.hidden

    def cut(self, input_ids, attention_mask, slots, cache=None, **given):
        found = right(self, input_ids, attention_mask, slots, cache, **given)
        for layer in cache.layers if cache is not None else ():
            layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
        return found

    monkeypatch.setattr(Prompt, "hidden", cut)
    with pytest.raises((AssertionError, RuntimeError)):
        kit.the_lead_once_equals_every_row(Prompt, qwen3)
