import peft
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from methods.base import TARGET_STAGE
from methods.conformance.fixtures import compute_row_states
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples, instantiate_method
from methods.core.slot_parameters import SlotContext
from methods.lora import LoRA, LowRankDelta
from tasks.core.types import UsageError


def test_each_row_gets_its_own_slots_product():
    torch.manual_seed(0)
    rows, slots = SlotContext(), (2, 0, 2, 0)
    rows.activate(slots, torch.device("cpu"))
    delta = LowRankDelta(nn.Linear(6, 5), rank=4, scale=2.0, dropout=0.0, slot_context=rows)
    for _ in range(3):
        delta.add_slot(torch.Generator())
    for parameter in delta.parameters():
        nn.init.normal_(parameter)
    x, y = torch.randn(4, 7, 6), torch.randn(4, 7, 5)
    want = [y[row] + 2.0 * x[row] @ (delta.b.tensors[slot] @ delta.a.tensors[slot]).T for row, slot in enumerate(slots)]
    assert_close(delta(x, y), torch.stack(want))


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_computes_the_same(backbone: Backbone, rslora: bool):
    ids = generate_examples(1, 1)[0].prompt_ids
    method = LoRA(backbone, {"rank": 4, "alpha": 12, "rslora": rslora})
    method.begin_stage(TARGET_STAGE, [0])
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.1)
    want, copied = (
        compute_row_states(method, ids),
        {key: (d.a.tensors[0].data, d.b.tensors[0].data) for key, d in method.deltas.items()},
    )
    method.close()
    config = peft.LoraConfig(
        r=4,
        lora_alpha=12,
        use_rslora=rslora,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        task_type="CAUSAL_LM",
    )
    theirs = peft.get_peft_model(backbone.model, config)
    for key, (a, b) in copied.items():
        layer = theirs.base_model.model.get_submodule(backbone.get_module_path(key))
        layer.lora_A["default"].weight.data.copy_(a)
        layer.lora_B["default"].weight.data.copy_(b)
    with torch.no_grad():
        found = theirs(input_ids=torch.tensor([ids])).logits[0]
        assert_close(backbone.compute_logits(want), found, rtol=1e-4, atol=1e-5)
    theirs.unload()
    backbone.model.requires_grad_(False)


@pytest.mark.parametrize(("sites", "rank"), [("q v", 8), ("q k v o", 4), ("q k v o gate up down", 2)])
def test_count(backbone: Backbone, sites: str, rank: int):
    """r (d_in + d_out) for every linear."""
    c, d = backbone.config, backbone.hidden_size
    heads, keys, f = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim, c.intermediate_size
    sizes = {"q": d + heads, "k": d + keys, "v": d + keys, "o": heads + d, "gate": d + f, "up": d + f, "down": f + d}
    method = LoRA(backbone, {"sites": sites, "rank": rank})
    method.begin_stage(TARGET_STAGE, [0, 1])
    want = rank * c.num_hidden_layers * sum(sizes[site] for site in sites.split())
    assert method.count_trained_parameters() == want
    assert method.count_trained_parameters(3) == 3 * want
    assert sum(tensor.numel() for tensor in method.slot_state_dict(1).values()) == want


def test_dropout_draws_from_its_own_stream_and_stops_at_evaluation(qwen3: Backbone):
    def losses(seed: int, training: bool) -> float:
        method = LoRA(qwen3, {"dropout": 0.5})
        method.begin_stage(TARGET_STAGE, [seed])
        for delta in method.deltas.values():
            nn.init.ones_(delta.b.tensors[0])
            nn.init.ones_(delta.a.tensors[0])
        torch.manual_seed(torch.seed() % 1000)
        return compute_row_states(method.train(training), generate_examples(1, 1)[0].prompt_ids).sum().item()

    assert losses(0, True) == losses(0, True)
    assert losses(0, True) != losses(1, True)
    assert losses(0, False) == losses(1, False)


def test_what_dropout_leaves_is_larger_by_as_much(qwen3: Backbone):
    method, ones = LoRA(qwen3, {"dropout": 0.2}), torch.ones(2, 500)
    method.begin_stage(TARGET_STAGE, [0])
    found = method.train().deltas["0_q"].apply_dropout(ones)
    assert set(found.unique().tolist()) == {0.0, 1.25}
    assert found.mean() == pytest.approx(1, abs=0.1)


def test_dropout_refuses_a_pack(qwen3: Backbone):
    with pytest.raises(UsageError, match="cannot be packed"):
        LoRA(qwen3, {"dropout": 0.1}).begin_stage(TARGET_STAGE, [0, 1])


def test_merged_names_are_the_backbones_own(backbone: Backbone):
    names = set(backbone.model.state_dict())
    assert set(instantiate_method(LoRA, backbone).merged_weights(1)) < names
