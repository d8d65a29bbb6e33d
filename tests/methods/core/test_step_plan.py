"""A training step worked out beforehand: leads of unequal length, and steps in parts."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from benchmark.proofs.material import batch, built, items
from methods import NAMES, load
from methods.backbone import Backbone
from methods.base import Method
from methods.plan import Plan, parts, plan
from tasks.example import Batch, Encoded


def packed() -> Batch:
    """Slot 0 has a long lead, slot 1 a shorter one, slot 2 none, slot 3 a single row."""
    alike, none = (
        items(3, 1, lead=60) + items(3, 2, lead=45),
        [one._replace(prompt=one.prompt[1:]) for one in items(1, 3)],
    )
    return batch([*alike, *none, *items(1, 4), *items(1, 5)], [0, 0, 0, 1, 1, 1, 2, 2, 3])


def gradients(method: Method, made: Plan | list[Plan]) -> tuple[torch.Tensor, ...]:
    learned = [p for p in method.parameters() if p.requires_grad]
    losses = [method.losses(one).sum() for one in (made if isinstance(made, list) else [made])]
    return torch.autograd.grad(sum(losses), learned)


@pytest.mark.parametrize("name", ["lora", "prompt", "prefix", "llama_adapter"])
def test_every_slot_has_a_lead_of_its_own_length(qwen3: Backbone, name: str):
    method = built(load(name), qwen3, 4)
    whole, led = (plan(packed(), virtual=method.virtual, lead=lead) for lead in (False, True))
    assert led.lead.shape == (4, 60)
    assert led.lead_mask.sum(1).tolist() == [60, 45, 1, 1]  # a token that nobody sees where there is no lead
    assert led.attention_mask[[0, 3, 6, 8], :60].sum(1).tolist() == [60, 45, 0, 0]
    assert led.tokens == whole.tokens
    rest = led.input_ids.shape[1]
    assert led.padded == (3 * (60 + rest), 3 * (45 + rest), 2 * rest, rest)
    assert_close(method.losses(led), method.losses(whole), rtol=1e-5, atol=1e-5)
    assert_close(gradients(method, led), gradients(method, whole), rtol=2e-4, atol=2e-5)


def test_what_stands_in_the_padding_changes_nothing(qwen3: Backbone):
    method, given = built(load("prompt"), qwen3, 4), packed()
    noise = given.input_ids.clone()
    noise[given.attention_mask == 0] = 77
    other = given._replace(input_ids=noise)
    assert torch.equal(
        method.losses(plan(other, virtual=method.virtual)), method.losses(plan(given, virtual=method.virtual))
    )


def rows(method: Method) -> Batch:
    return packed() if method.slots == 4 else batch(items(9, 6), [0] * 9)


@pytest.mark.parametrize("count", [2, 4, 50])
@pytest.mark.parametrize(("name", "slots"), [("lora", 4), ("prompt", 1)])
def test_the_parts_of_a_step_add_up_to_the_whole(qwen3: Backbone, name: str, slots: int, count: int):
    method = built(load(name), qwen3, slots)
    given = rows(method)
    made = parts(given, count, method.plan)
    assert len(made) == min(count, 9)
    assert max(len(one.slots) for one in made) == -(-9 // len(made))
    whole = method.plan(given)
    assert sum(sum(one.tokens) for one in made) == sum(whole.tokens)
    assert_close(gradients(method, made), gradients(method, whole), rtol=2e-4, atol=2e-5)


def test_a_step_in_parts_reports_each_slot_once(qwen3: Backbone):
    method = built(load("lora"), qwen3, 4)
    given = packed()
    whole = method.training_step(given, 0)
    method.parts = 4
    said = method.training_step(method.on_before_batch_transfer(given, 0), 0)
    said["loss"].backward()
    assert (said["present"], said["tokens"]) == (whole["present"], whole["tokens"])
    assert_close(said["losses"], whole["losses"], rtol=1e-5, atol=1e-5)
    learned = [p for p in method.parameters() if p.requires_grad]
    assert_close(tuple(p.grad for p in learned), gradients(method, method.plan(given)), rtol=2e-4, atol=2e-5)


def test_a_few_tokens_saved_are_not_worth_a_second_pass():
    few: list[Encoded] = [*items(4, 7, lead=1, most=40)]
    assert plan(batch(few, [0] * 4)).lead is None
    assert plan(batch(few, [0] * 4), virtual=100).lead is not None


def test_places_asked_for_are_those_before_answer_tokens(qwen3: Backbone):
    made = plan(packed())
    rows, columns = made.at // made.input_ids.shape[1], made.at % made.input_ids.shape[1]
    assert torch.equal(made.asked.flatten()[made.among], columns)
    assert torch.equal(made.among // made.asked.shape[1], rows)


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).trains])
def test_losses_and_gradients_are_those_of_a_pass_that_leaves_nothing_out(qwen3: Backbone, name: str):
    """As anybody would write them: all hidden states, all logits, the mean over a slot's answer tokens."""
    method = built(load(name), qwen3)
    given = batch(items(6, 7), [place % method.slots for place in range(6)])
    source = given.attention_mask.bool() & (given.labels == -100)
    logits = qwen3.head(method.hidden(given.input_ids, given.attention_mask, given.slots, source=source))
    each = F.cross_entropy(logits[:, :-1].transpose(1, 2), given.labels[:, 1:], reduction="none")
    slots, said = torch.tensor(given.slots), given.labels[:, 1:] != -100
    want = torch.stack([each[slots == slot].sum() / said[slots == slot].sum() for slot in range(method.slots)])
    learned = [p for p in method.parameters() if p.requires_grad]
    found = method.loss(given)
    assert_close(found, want, rtol=1e-5, atol=1e-5)
    pairs = (torch.autograd.grad(loss.sum(), learned, allow_unused=True) for loss in (found, want))
    assert_close(*pairs, rtol=1e-3, atol=2e-5)
