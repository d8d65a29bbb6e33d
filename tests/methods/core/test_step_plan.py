"""A training step worked out beforehand: leads of unequal length, and steps in parts."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from methods import NAMES, load_method
from methods.base import Method
from methods.conformance.fixtures import make_batch
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples, instantiate_method
from methods.core.step_plan import StepPlan, build_step_plan, plan_micro_batches
from tasks.core.types import Batch, EncodedExample


def packed() -> Batch:
    """Slot 0 has a long lead, slot 1 a shorter one, slot 2 none, slot 3 a single row."""
    alike, none = (
        generate_examples(3, 1, prefix_length=60) + generate_examples(3, 2, prefix_length=45),
        [one._replace(prompt_ids=one.prompt_ids[1:]) for one in generate_examples(1, 3)],
    )
    return make_batch([*alike, *none, *generate_examples(1, 4), *generate_examples(1, 5)], [0, 0, 0, 1, 1, 1, 2, 2, 3])


def gradients(method: Method, made: StepPlan | list[StepPlan]) -> tuple[torch.Tensor, ...]:
    learned = [p for p in method.parameters() if p.requires_grad]
    losses = [method.compute_slot_losses(one).sum() for one in (made if isinstance(made, list) else [made])]
    return torch.autograd.grad(sum(losses), learned)


@pytest.mark.parametrize("name", ["lora", "prompt", "prefix", "llama_adapter"])
def test_every_slot_has_a_lead_of_its_own_length(qwen3: Backbone, name: str):
    method = instantiate_method(load_method(name), qwen3, 4)
    whole, led = (
        build_step_plan(packed(), num_virtual_tokens=method.num_virtual_tokens, share_prefix=lead)
        for lead in (False, True)
    )
    assert led.shared_prefix.shape == (4, 60)
    assert led.shared_prefix_mask.sum(1).tolist() == [60, 45, 1, 1]  # a token that nobody sees where there is no lead
    assert led.attention_mask[[0, 3, 6, 8], :60].sum(1).tolist() == [60, 45, 0, 0]
    assert led.num_tokens == whole.num_tokens
    rest = led.input_ids.shape[1]
    assert led.num_padded_tokens == (3 * (60 + rest), 3 * (45 + rest), 2 * rest, rest)
    assert_close(method.compute_slot_losses(led), method.compute_slot_losses(whole), rtol=1e-5, atol=1e-5)
    assert_close(gradients(method, led), gradients(method, whole), rtol=2e-4, atol=2e-5)


def test_what_stands_in_the_padding_changes_nothing(qwen3: Backbone):
    method, given = instantiate_method(load_method("prompt"), qwen3, 4), packed()
    noise = given.input_ids.clone()
    noise[given.attention_mask == 0] = 77
    other = given._replace(input_ids=noise)
    assert torch.equal(
        method.compute_slot_losses(build_step_plan(other, num_virtual_tokens=method.num_virtual_tokens)),
        method.compute_slot_losses(build_step_plan(given, num_virtual_tokens=method.num_virtual_tokens)),
    )


def rows(method: Method) -> Batch:
    return packed() if method.num_slots == 4 else make_batch(generate_examples(9, 6), [0] * 9)


@pytest.mark.parametrize("count", [2, 4, 50])
@pytest.mark.parametrize(("name", "slots"), [("lora", 4), ("prompt", 1)])
def test_the_parts_of_a_step_add_up_to_the_whole(qwen3: Backbone, name: str, slots: int, count: int):
    method = instantiate_method(load_method(name), qwen3, slots)
    given = rows(method)
    made = plan_micro_batches(given, count, method.plan_step)
    assert len(made) == min(count, 9)
    assert max(len(one.slots) for one in made) == -(-9 // len(made))
    whole = method.plan_step(given)
    assert sum(sum(one.num_tokens) for one in made) == sum(whole.num_tokens)
    assert_close(gradients(method, made), gradients(method, whole), rtol=2e-4, atol=2e-5)


def test_a_step_in_parts_reports_each_slot_once(qwen3: Backbone):
    method = instantiate_method(load_method("lora"), qwen3, 4)
    given = packed()
    whole = method.training_step(given, 0)
    method.num_micro_batches = 4
    said = method.training_step(method.on_before_batch_transfer(given, 0), 0)
    said["loss"].backward()
    assert (said["present"], said["tokens"]) == (whole["present"], whole["tokens"])
    assert_close(said["losses"], whole["losses"], rtol=1e-5, atol=1e-5)
    learned = [p for p in method.parameters() if p.requires_grad]
    assert_close(tuple(p.grad for p in learned), gradients(method, method.plan_step(given)), rtol=2e-4, atol=2e-5)


def test_a_few_tokens_saved_are_not_worth_a_second_pass():
    few: list[EncodedExample] = [*generate_examples(4, 7, prefix_length=1, max_text_length=40)]
    assert build_step_plan(make_batch(few, [0] * 4)).shared_prefix is None
    assert build_step_plan(make_batch(few, [0] * 4), num_virtual_tokens=100).shared_prefix is not None


def test_places_asked_for_are_those_before_answer_tokens(qwen3: Backbone):
    made = build_step_plan(packed())
    rows, columns = made.label_positions // made.input_ids.shape[1], made.label_positions % made.input_ids.shape[1]
    assert torch.equal(made.query_positions.flatten()[made.flat_index], columns)
    assert torch.equal(made.flat_index // made.query_positions.shape[1], rows)


@pytest.mark.parametrize("name", [name for name in NAMES if load_method(name).uses_gradient_descent])
def test_losses_and_gradients_are_those_of_a_pass_that_leaves_nothing_out(qwen3: Backbone, name: str):
    """As anybody would write them: all hidden states, all logits, the mean over a slot's answer tokens."""
    method = instantiate_method(load_method(name), qwen3)
    given = make_batch(generate_examples(6, 7), [place % method.num_slots for place in range(6)])
    source = given.attention_mask.bool() & (given.labels == -100)
    logits = qwen3.compute_logits(
        method.compute_hidden_states(given.input_ids, given.attention_mask, given.slots, prompt_mask=source)
    )
    each = F.cross_entropy(logits[:, :-1].transpose(1, 2), given.labels[:, 1:], reduction="none")
    slots, said = torch.tensor(given.slots), given.labels[:, 1:] != -100
    want = torch.stack([each[slots == slot].sum() / said[slots == slot].sum() for slot in range(method.num_slots)])
    learned = [p for p in method.parameters() if p.requires_grad]
    found = method.compute_batch_losses(given)
    assert_close(found, want, rtol=1e-5, atol=1e-5)
    pairs = (torch.autograd.grad(loss.sum(), learned, allow_unused=True) for loss in (found, want))
    assert_close(*pairs, rtol=1e-3, atol=2e-5)
