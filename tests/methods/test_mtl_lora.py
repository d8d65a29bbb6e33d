import pytest
import torch
from torch import nn
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE
from methods.baselines import ZeroShot
from methods.lora import LowRankDelta
from methods.mtl_lora import MTLLoRA, TaskMixDelta
from tests.support.stages import away, batch_of, logits, rows_of, started, step

LINEAR = nn.Linear(6, 5)


def mix(ups: int, *slots: int, rank: int = 4, tau: float = 0.7) -> TaskMixDelta:
    return TaskMixDelta(LINEAR, ups, tau, rank, 2.0, 0.0, rows_of(*slots))


def test_each_row_is_the_paper_written_out():
    slots = (2, 0, 2, 0)
    delta, x, y = started(mix(3, *slots)), torch.randn(4, 7, 6), torch.randn(4, 7, 5)
    assert (len(delta.a.tensors), len(delta.b.tensors), len(delta.inner.tensors), len(delta.mix.tensors)) == (
        1,
        1,
        3,
        3,
    )
    want = y.clone()
    for row, slot in enumerate(slots):
        share = torch.softmax(delta.mix.tensors[slot] / 0.7, 0)
        up = sum(share[i] * delta.b.tensors[0][i] for i in range(3))
        for place in range(7):
            want[row, place] += 2.0 * (up @ (delta.inner.tensors[slot] @ (delta.a.tensors[0] @ x[row, place])))
    assert_close(delta(x, y), want)


def test_one_task_one_up_projection_and_lambda_one_is_lora():
    delta, x, y = started(mix(1, 0, 0), 1), torch.randn(2, 3, 6), torch.randn(2, 3, 5)
    with torch.no_grad():
        delta.inner.tensors[0].copy_(torch.eye(4))
    lora = LowRankDelta(LINEAR, 4, 2.0, 0.0, rows_of(0, 0))
    lora.a.replace([delta.a.tensors[0].detach()])
    lora.b.replace([delta.b.tensors[0][0].detach()])
    assert_close(delta(x, y), lora(x, y))


def test_sources_of_one_seed_start_with_mixtures_of_their_own_and_lambda_at_one(qwen3):
    method = MTLLoRA(qwen3)
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    for delta in method.deltas.values():
        assert all(torch.equal(inner, torch.eye(8)) for inner in delta.inner.tensors)
        logits = torch.stack(list(delta.mix.tensors))
        assert logits.abs().max() <= 3**-0.5
        assert min((logits[i] - logits[j]).abs().max() for i in range(3) for j in range(i)) > 0.01


def test_up_projections_differ_after_one_step_and_never_under_equal_mixtures(qwen3):
    for equal in (False, True):
        method = MTLLoRA(qwen3)
        method.begin_stage(SOURCE_STAGE, [0, 0])
        if equal:
            for delta in method.deltas.values():
                delta.mix.replace([torch.ones(3), torch.ones(3)])
        for seed in range(2):
            step(method, batch_of(0, 1, seed=seed), lr=1e-2)
        apart = [(d.b.tensors[0][0] - d.b.tensors[0][1]).abs().max().item() for d in method.deltas.values()]
        assert max(apart) == 0 if equal else min(apart) > 1e-4


def test_an_absent_source_keeps_its_lambda_and_mixture(qwen3):
    method = MTLLoRA(qwen3, {"weight_decay": 0.1})
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    away(method)
    before = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    step(method, batch_of(0, 2))
    moved = {name.split(".")[-1] for name, t in method.trained_state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {"0", "2"}


@pytest.mark.parametrize("target", ["inner mix", "a b inner mix"])
def test_a_target_starts_from_the_means_and_learns_what_it_is_told(qwen3, target):
    method = MTLLoRA(qwen3, {"trainable_on_target": target, "target_lr": 0.2})
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    away(method)
    delta = method.deltas["0_k"]
    inner, logits_of = (torch.stack(list(bank.tensors)).detach().mean(0) for bank in (delta.inner, delta.mix))
    shared = delta.b.tensors[0].detach().clone()
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert all(torch.equal(delta.inner.tensors[slot], inner) for slot in (0, 1))
    assert all(torch.equal(delta.mix.tensors[slot], logits_of) for slot in (0, 1))
    assert torch.equal(delta.b.for_slot(1), shared)
    owned = method.trainable_by_slot()
    assert set(owned) == {0, 1}
    rates = {name.split(".")[-3]: method.optimizer_group(name).lr for name in owned[1]}
    assert rates == pytest.approx(
        {"inner": 0.2, "mix": 0.2} | ({"a": 0.02, "b": 0.02} if "a" in target.split() else {})
    )


def test_count_is_the_closed_form_in_both_stages(backbone):
    method = MTLLoRA(backbone, {"rank": 4, "up_projections": 3})
    shapes = [linear.weight.shape for linear in backbone.get_linears("q k v o").values()]
    method.begin_stage(SOURCE_STAGE, [0, 0, 0, 0])
    assert method.count_trained_parameters(4) == sum(4 * i + 3 * 4 * o + 4 * (16 + 3) for o, i in shapes)
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert method.count_trained_parameters(1) == sum(16 + 3 for _ in shapes)


def test_it_starts_as_the_frozen_model_and_merges_for_each_task(backbone):
    batch = batch_of(1, 1)
    frozen = logits(ZeroShot(backbone), batch)
    method = MTLLoRA(backbone)
    method.begin_stage(SOURCE_STAGE, [0, 0])
    assert torch.equal(logits(method, batch), frozen)
    away(method)
    want, weights = logits(method, batch), method.merged_weights(1)
    method.close()
    kept = {name: backbone.model.get_parameter(name).detach().clone() for name in weights}
    with torch.no_grad():
        for name, weight in weights.items():
            backbone.model.get_parameter(name).copy_(weight)
        found = logits(ZeroShot(backbone), batch)
        for name, weight in kept.items():
            backbone.model.get_parameter(name).copy_(weight)
    assert_close(found, want, rtol=1e-4, atol=1e-4)
