import pytest
import torch
from torch import nn
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE
from methods.baselines import ZeroShot
from methods.hydra_lora import HydraLoRA, MultiHeadDelta
from methods.lora import LowRankDelta
from tasks.core.types import UsageError
from tests.support.stages import away, batch_of, logits, rows_of, started, step

LINEAR = nn.Linear(6, 5)


def heads(n: int = 3, *slots: int) -> MultiHeadDelta:
    delta = MultiHeadDelta(LINEAR, n, 4, 2.0, 0.0, rows_of(*slots))
    for bank in (delta.a, delta.b, delta.router):
        bank.is_shared = not slots
    return started(delta)


def test_each_token_weighs_the_heads_by_its_own_softmax():
    slots = (2, 0, 2, 0)
    delta, x, y = heads(3, *slots), torch.randn(4, 7, 6), torch.randn(4, 7, 5)
    want = y.clone()
    for row, slot in enumerate(slots):
        a, b, router = delta.a.tensors[slot], delta.b.tensors[slot], delta.router.tensors[slot]
        for place in range(7):
            weights = torch.softmax(router @ x[row, place], 0)
            for head in range(3):
                want[row, place] += 2.0 * weights[head] * (b[head] @ (a @ x[row, place]))
    assert_close(delta(x, y), want)


def test_one_set_for_all_rows_gives_the_same_formula():
    delta, x, y = heads(2), torch.randn(2, 3, 6), torch.randn(2, 3, 5)
    assert len(delta.a.tensors) == 1
    weights = (x @ delta.router.tensors[0].T).softmax(-1)
    want = y + 2.0 * sum(weights[..., i, None] * (x @ delta.a.tensors[0].T @ delta.b.tensors[0][i].T) for i in range(2))
    assert_close(delta(x, y), want)


@pytest.mark.parametrize("n", [1, 3])
def test_equal_heads_are_lora_whatever_the_router_says(n):
    delta, x, y = heads(n), torch.randn(2, 3, 6), torch.randn(2, 3, 5)
    with torch.no_grad():
        delta.b.tensors[0].copy_(delta.b.tensors[0][:1].expand(n, -1, -1).clone())
    lora = LowRankDelta(LINEAR, 4, 2.0, 0.0, rows_of(0, 0))
    lora.a.replace([delta.a.tensors[0].detach()])
    lora.b.replace([delta.b.tensors[0][0].detach()])
    assert_close(delta(x, y), lora(x, y))


def test_heads_differ_after_one_step_and_never_under_a_router_of_zeros(qwen3):
    for zero in (False, True):
        method = HydraLoRA(qwen3)
        method.begin_stage(SOURCE_STAGE, [0, 0])
        if zero:
            for delta in method.deltas.values():
                nn.init.zeros_(delta.router.tensors[0])
        for seed in range(3):
            step(method, batch_of(0, 1, seed=seed), lr=1e-2)
        apart = [(delta.b.tensors[0][0] - delta.b.tensors[0][1]).abs().max().item() for delta in method.deltas.values()]
        assert max(apart) == 0 if zero else min(apart) > 1e-4


def test_count_is_the_closed_form_in_both_stages(backbone):
    for target, parts in (("a b router", (1, 1, 1)), ("router", (0, 0, 1))):
        method = HydraLoRA(backbone, {"rank": 4, "heads": 3, "trainable_on_target": target})
        shapes = [linear.weight.shape for linear in backbone.get_linears("q k v o").values()]
        method.begin_stage(SOURCE_STAGE, [0, 0, 0])
        assert method.count_trained_parameters(3) == sum(4 * i + 3 * 4 * o + 3 * i for o, i in shapes)
        method.begin_stage(TARGET_STAGE, [0, 1])
        a, b, r = parts
        want = sum(a * 4 * i + b * 3 * 4 * o + r * 3 * i for o, i in shapes)
        assert (method.count_trained_parameters(1), method.count_trained_parameters(2)) == (want, 2 * want)


def test_it_starts_as_the_frozen_model_and_cannot_be_merged(backbone):
    batch = batch_of(0, 1)
    frozen = logits(ZeroShot(backbone), batch)
    method = HydraLoRA(backbone)
    method.begin_stage(SOURCE_STAGE, [0, 0])
    assert torch.equal(logits(method, batch), frozen)
    away(method)
    assert not torch.allclose(logits(method, batch), frozen)
    with pytest.raises(UsageError, match="cannot be merged"):
        method.merged_weights()
