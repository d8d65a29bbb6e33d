import peft
import pytest
import torch
from torch.testing import assert_close

from methods.base import TARGET_STAGE
from methods.prefix import Prefix, select_prefix_tokens
from tasks.core.types import EncodedExample, Example, UsageError
from tests.support.single import entered, frozen, ids_of, logits

WORDS = ((5, 6), (7,))
ITEM = EncodedExample(Example("u", "toy", "", ("一",), ("一", "二")), (1, 8, 9, 10, 20, 21), (5, 6, 1), WORDS, 4)


def test_it_starts_as_the_model_with_label_words_and_instruction_in_front(backbone):
    method, ids = Prefix(backbone, {"length": 8}), ids_of()
    method.begin_stage(TARGET_STAGE, [0], [[ITEM]])
    text = torch.tensor([[5, 6, 7, 8, 9, 10, 5, 6]]).expand(3, -1)  # 1 is special; what is too short repeats
    assert_close(logits(method, ids), frozen(backbone, torch.cat([text, ids], 1))[:, 8:], rtol=0, atol=1e-5)


def test_options_of_single_items_are_no_label_words():
    other = ITEM._replace(choice_ids=((11,), (12,)))
    assert select_prefix_tokens([ITEM, other], 20, {0, 1}, torch.Generator()) == [8, 9, 10]
    assert sorted(select_prefix_tokens([], 6, {0, 1}, torch.Generator())) == [2, 3, 4, 5]


def test_attention_is_the_paper_written_out(backbone):
    """One layer's attention output against softmax([K_p; K]) [V_p; V], position by position, heads in groups."""
    method, ids = entered(Prefix, backbone, slots=3, length=4), ids_of()
    slots, found, seen = (2, 0, 1), {}, {}
    attention = backbone.model.model.layers[0].self_attn
    hooks = [
        attention.o_proj.register_forward_pre_hook(lambda _m, inputs: found.update(out=inputs[0])),
        attention.register_forward_pre_hook(
            lambda _m, _i, kwargs: seen.update(x=kwargs["hidden_states"], at=kwargs["position_embeddings"]),
            with_kwargs=True,
        ),
    ]
    logits(method, ids, slots)
    for hook in hooks:
        hook.remove()
    heads = [part.unflatten(-1, (-1, 8)) for part in (attention.q_proj(seen["x"]), attention.k_proj(seen["x"]))]
    if hasattr(attention, "q_norm"):
        heads = [attention.q_norm(heads[0]), attention.k_norm(heads[1])]
    cos, sin = seen["at"]
    q, k = (part * cos[:, :, None] + torch.cat([-part[..., 4:], part[..., :4]], -1) * sin[:, :, None] for part in heads)
    v = attention.v_proj(seen["x"]).unflatten(-1, (-1, 8))
    with torch.no_grad():
        for row, slot in enumerate(slots):
            for head in range(4):
                keys = torch.cat([method.keys[0].tensors[slot][head // 2], k[row, :, head // 2]])
                values = torch.cat([method.values[0].tensors[slot][head // 2], v[row, :, head // 2]])
                for place in range(ids.shape[1]):
                    weight = torch.softmax(keys[: 4 + place + 1] @ q[row, place, head] / 8**0.5, 0)
                    want = weight @ values[: 4 + place + 1]
                    assert_close(found["out"][row, place, head * 8 : head * 8 + 8], want, rtol=1e-4, atol=1e-5)


def test_the_text_starts_at_position_l(qwen3):
    """The first token's rotation is that of position 4: cos of 4 on the fastest pair."""
    method, seen = entered(Prefix, qwen3, length=4), {}
    hook = qwen3.model.model.layers[0].self_attn.register_forward_pre_hook(
        lambda _m, _i, kwargs: seen.update(at=kwargs["position_embeddings"]), with_kwargs=True
    )
    logits(method, ids_of())
    hook.remove()
    assert_close(seen["at"][0][0, 0, 0], torch.tensor(4.0).cos())


def test_peft_with_the_same_tables_gives_the_same_logits(backbone):
    method, ids, layers, length = entered(Prefix, backbone, length=4), ids_of(), 2, 4
    got = logits(method, ids)
    pairs = [bank.tensors[0].detach() for pair in zip(method.keys, method.values, strict=True) for bank in pair]
    table = torch.stack(pairs).permute(2, 0, 1, 3).reshape(length, -1)  # [l, (K_0, V_0, K_1, ...) of H_kv d_h]
    method.close()
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=length, token_dim=16, num_attention_heads=2, num_layers=layers
    )
    model = peft.get_peft_model(backbone.model, config).eval()
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(table)
        want = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    backbone.detach()
    assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_peft_with_the_same_network_gives_the_same_logits(backbone):
    method, ids, length = entered(Prefix, backbone, spread=0.2, length=4, mlp=6), ids_of(), 4
    got = logits(method, ids)
    own = {name: bank.tensors[0].detach() for name, bank in method.slot_parameters().items()}
    method.close()
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=length, token_dim=16, num_attention_heads=2, num_layers=2,
        prefix_projection=True, encoder_hidden_size=6,
    )  # fmt: skip
    model = peft.get_peft_model(backbone.model, config).train()  # once it is in inference mode peft drops the network
    with torch.no_grad():
        encoder = model.prompt_encoder["default"]
        encoder.embedding.weight.copy_(own["table"])
        for place, name in ((0, "inner"), (2, "outer")):
            encoder.transform[place].weight.copy_(own[f"{name}.weight"])
            encoder.transform[place].bias.copy_(own[f"{name}.bias"])
        want = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    backbone.detach()
    assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_the_networks_of_slots_are_their_own(backbone):
    method, ids = entered(Prefix, backbone, slots=3, length=4, mlp=6), ids_of()
    mixed = logits(method, ids, (2, 0, 1))
    for row, slot in enumerate((2, 0, 1)):
        assert_close(mixed[row : row + 1], logits(method, ids[row : row + 1], (slot,)), rtol=1e-5, atol=1e-5)


def test_the_network_starts_as_linears_do(qwen3):
    method = Prefix(qwen3, {"mlp": 400})
    method.begin_stage(TARGET_STAGE, [0])
    for linear, width in ((method.inner, 16), (method.outer, 400)):
        bound = width**-0.5
        for bank in (linear.weight, linear.bias):
            assert 0.9 * bound < bank.tensors[0].abs().max() <= bound


def test_count(backbone):
    layers, d_kv = 2, 16
    assert entered(Prefix, backbone).count_trained_parameters() == 2 * 20 * layers * d_kv
    assert entered(Prefix, backbone, slots=3, length=7).count_trained_parameters(3) == 3 * 2 * 7 * layers * d_kv
    network = 20 * d_kv + (d_kv + 1) * 6 + (6 + 1) * 2 * layers * d_kv
    assert entered(Prefix, backbone, mlp=6).count_trained_parameters() == network


def test_a_prefix_of_nothing_is_an_error(qwen3):
    with pytest.raises(UsageError, match="length is at least 1"):
        Prefix(qwen3, {"length": 0})
