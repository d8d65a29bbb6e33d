import pytest
import torch
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE
from methods.lora import LoRA
from methods.shared_lora import SharedLoRA
from tasks.core.types import UsageError
from tests.support.stages import away, batch_of, logits, step


def test_one_source_learns_exactly_as_lora_does(qwen3):
    found = []
    for kind, stage in (
        (LoRA, TARGET_STAGE),
        (SharedLoRA, SOURCE_STAGE._replace(name="target")),
    ):  # the name draws the start
        method = type("One", (kind,), {"stages": (stage,)})(qwen3)
        method.begin_stage(stage, [3])
        for seed in range(3):
            step(method, batch_of(0, 0, seed=seed))
        found.append(method.trained_state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_all_sources_share_one_pair_and_each_target_slot_continues_with_its_own(qwen3):
    method = SharedLoRA(qwen3)
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    assert all(len(bank.tensors) == 1 for bank in method.slot_parameters().values())
    away(method)
    before = method.trained_state_dict()
    method.begin_stage(TARGET_STAGE, [5, 6])
    after = method.trained_state_dict()
    assert all(torch.equal(after[f"{name[:-1]}{slot}"], tensor) for name, tensor in before.items() for slot in (0, 1))
    step(method, batch_of(1, 1))
    assert all(
        torch.equal(method.trained_state_dict()[name], tensor) for name, tensor in before.items()
    )  # slot 0 was absent


def test_the_order_of_rows_does_not_change_the_gradient(qwen3):
    method, batch = SharedLoRA(qwen3), batch_of(0, 1, 1, 2)
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    away(method)
    order = [2, 0, 3, 1]
    other = batch._replace(
        **{name: getattr(batch, name)[order] for name in ("input_ids", "attention_mask", "labels")},
        slots=tuple(batch.slots[i] for i in order),
    )
    found = []
    for rows in (batch, other):
        method.zero_grad()
        method.compute_batch_losses(rows).sum().backward()
        found.append([p.grad.clone() for p in method.parameters()])
    for one, two in zip(*found, strict=True):
        assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_with_a_frozen_only_b_learns_on_the_target_at_the_target_rate(qwen3):
    method = SharedLoRA(qwen3, {"trainable_on_target": "b", "target_lr": 0.5, "lr": 0.1})
    method.begin_stage(SOURCE_STAGE, [0, 0])
    assert {method.optimizer_group(name).lr for part in method.trainable_by_slot().values() for name in part} == {0.1}
    method.begin_stage(TARGET_STAGE, [0, 1])
    owned = method.trainable_by_slot()
    assert set(owned) == {0, 1}
    assert {name.split(".")[-3] for part in owned.values() for name in part} == {"b"}
    assert {method.optimizer_group(name).lr for part in owned.values() for name in part} == {0.5}
    method.load(method.trained_state_dict())
    assert method.trainable_by_slot().keys() == owned.keys(), "what was frozen learns"
    assert all(method.trainable_by_slot()[slot].keys() == part.keys() for slot, part in owned.items())


def test_a_cell_taken_out_of_a_pack_answers_as_it_did_there(qwen3):
    method = SharedLoRA(qwen3, {"trainable_on_target": "b"})
    method.begin_stage(SOURCE_STAGE, [0, 0])
    method.begin_stage(TARGET_STAGE, [0, 1])
    away(method)
    batch = batch_of(1, 1)
    want, state = logits(method, batch), method.slot_state_dict(1)
    alone = SharedLoRA(qwen3, {"trainable_on_target": "b"})
    alone.load(state)
    assert_close(logits(alone, batch._replace(slots=(0, 0))), want)


def test_a_second_target_pack_needs_the_sources_result_again(qwen3):
    method = SharedLoRA(qwen3)
    method.begin_stage(SOURCE_STAGE, [0])
    state = method.trained_state_dict()
    method.begin_stage(TARGET_STAGE, [0])
    with pytest.raises(RuntimeError, match="load its result first"):
        method.begin_stage(TARGET_STAGE, [1])
    method.load(state)
    method.begin_stage(TARGET_STAGE, [1])


def test_a_part_that_does_not_exist_is_an_error():
    with pytest.raises(UsageError, match="takes some of: a b"):
        SharedLoRA.parse_config({"trainable_on_target": "a c"})
