import pytest
import torch
from torch import nn
from torch.testing import assert_close

from methods.base import TARGET_STAGE, OptimizerGroup
from methods.bitfit import BiasDelta, BitFit
from tasks.core.types import UsageError
from tests.support.single import away, entered, frozen, ids_of, logits, rows_of


def test_each_row_gets_its_own_slots_bias():
    slots, y = (2, 0, 2, 0), torch.randn(4, 7, 5)
    bias = BiasDelta(nn.Linear(6, 5), rows_of(*slots))
    for _ in range(3):
        bias.add_slot()
    away(bias)
    want = y.clone()
    for row, slot in enumerate(slots):
        for place in range(7):
            want[row, place] += bias.bias.tensors[slot][0]
    assert_close(bias(torch.randn(4, 7, 6), y), want, rtol=0, atol=0)


@pytest.mark.parametrize("sites", ["existing", "all"])
def test_it_is_the_backbone_with_other_biases(backbone, sites):
    method, ids = entered(BitFit, backbone, sites=sites), ids_of()
    got = logits(method, ids)
    linears = {key: backbone.get_linears(method.bias_sites)[key] for key in method.biases}
    wanted = {key: method.biases[key].bias.tensors[0][0].detach() for key in linears}
    method.close()
    before = {key: linear.bias for key, linear in linears.items()}
    for key, linear in linears.items():
        linear.bias = nn.Parameter(wanted[key] + (0 if before[key] is None else before[key]), requires_grad=False)
    want = frozen(backbone, ids)
    for key, linear in linears.items():
        linear.bias = before[key]
    assert (want - frozen(backbone, ids)).abs().max() > 0.1
    assert_close(got, want)


def test_the_sites_are_the_biases_that_exist_and_else_those_of_qwen2(backbone):
    assert BitFit(backbone).bias_sites == "q k v"
    assert BitFit(backbone, {"sites": "all"}).bias_sites == "q k v o gate up down"


def test_counts(backbone):
    d, d_q, d_kv, f, layers = 32, 32, 16, 48, 2
    assert entered(BitFit, backbone).count_trained_parameters() == layers * (d_q + 2 * d_kv)
    assert entered(BitFit, backbone, sites="all").count_trained_parameters() == layers * (
        d_q + 2 * d_kv + d + 2 * f + d
    )


def test_the_key_bias_gets_gradient_because_the_rotation_follows_it(backbone):
    method, ids = entered(BitFit, backbone), ids_of()
    method.backbone.compute_logits(method.compute_hidden_states(ids, torch.ones_like(ids), (0,) * 3)).pow(
        2
    ).mean().backward()
    assert method.biases["0_k"].bias.tensors[0].grad.abs().max() > 1e-4


def test_it_merges_where_the_checkpoint_has_the_biases_and_says_so_where_not(backbone):
    method, ids = entered(BitFit, backbone), ids_of()
    if backbone.config.model_type != "qwen2":
        assert not method.is_mergeable
        with pytest.raises(UsageError, match="lacks biases at some of: q k v"):
            method.merged_weights()
        return
    got, weights = logits(method, ids), method.merged_weights()
    assert method.is_mergeable
    method.close()
    before = {name: backbone.model.get_parameter(name).clone() for name in weights}
    backbone.model.load_state_dict(weights, strict=False)
    want = frozen(backbone, ids)
    backbone.model.load_state_dict(before, strict=False)
    assert_close(got, want)


def test_no_sites_is_an_error(qwen3):
    with pytest.raises(UsageError, match="found none"):
        BitFit(qwen3, {"sites": " "})


def test_nothing_pulls_a_bias_back(qwen3):
    method = BitFit(qwen3, {"weight_decay": 0.1, "lr": 0.5})
    method.begin_stage(TARGET_STAGE, [0])
    assert {method.optimizer_group(name) for name, _ in method.named_parameters()} == {OptimizerGroup(0.5, 0.0)}
