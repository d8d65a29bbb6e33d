import peft
import pytest
import torch
from torch.testing import assert_close

from methods.base import TARGET_STAGE
from methods.core.architecture import QWEN2_5_SHAPES
from methods.core.meta_backbone import count_parameters_by_stage
from methods.llama_adapter import LlamaAdapter
from tasks.core.types import UsageError
from tests.support.single import entered, frozen, ids_of, logits


def test_each_row_is_the_paper_written_out(backbone):
    """The term of one layer, head by head: key and value heads are shared by groups of query heads."""
    method, slots = entered(LlamaAdapter, backbone, slots=3, length=5), (2, 0, 2)
    attention = backbone.model.model.layers[1].self_attn
    q = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))  # [b, H, s, d_h]
    method.slot_context.activate(slots, q.device)
    with torch.no_grad():
        got = method.compute_attention_term(attention, q)
        for row, slot in enumerate(slots):
            prompt, gate = method.prompts["1"].tensors[slot], method.gates["1"].tensors[slot]
            key, value = (part(prompt).view(5, 2, 8) for part in (attention.k_proj, attention.v_proj))
            if hasattr(attention, "k_norm"):
                key = key / (key.pow(2).mean(-1, keepdim=True) + attention.k_norm.variance_epsilon).sqrt()
                key = key * attention.k_norm.weight
            for head in range(4):
                for place in range(6):
                    weight = torch.softmax(key[:, head // 2] @ q[row, head, place] / 8**0.5, 0)
                    want = gate[head].tanh() * (weight @ value[:, head // 2])
                    assert_close(got[row, place, head], want, rtol=1e-4, atol=1e-5)


def test_it_is_added_before_the_output_projection_of_the_top_layers_only(backbone):
    method, ids, found = entered(LlamaAdapter, backbone), ids_of(), []
    assert list(method.prompts) == ["1"]
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _m, inputs: found.append(inputs[0]))
        for layer in backbone.model.model.layers
    ]
    logits(method, ids)
    method.close()
    frozen(backbone, ids)
    for hook in hooks:
        hook.remove()
    assert torch.equal(found[0], found[2])
    assert (found[1] - found[3]).abs().max() > 0.1


def test_at_first_only_the_gates_get_gradient_and_then_the_prompts(backbone):
    method, ids = LlamaAdapter(backbone, {"layers": 2}), ids_of()
    method.begin_stage(TARGET_STAGE, [0])
    for moved in (False, True):
        method.zero_grad()
        backbone.compute_logits(method.compute_hidden_states(ids, torch.ones_like(ids), (0,) * 3)).pow(
            2
        ).mean().backward()
        for layer in ("0", "1"):
            assert method.gates[layer].tensors[0].grad.abs().min() > 0
            assert bool(method.prompts[layer].tensors[0].grad.abs().max() > 0) == moved
        with torch.no_grad():
            for gate in method.gates.values():
                gate.tensors[0] += 0.1


def test_peft_with_the_same_prompts_gives_the_same_logits(loaded):
    """peft has one gate for all heads and no tanh, and no other architecture of ours."""
    backbone, ids, gates = loaded["llama"], ids_of(), (0.3, -0.6)
    method = entered(LlamaAdapter, backbone, layers=2)
    with torch.no_grad():
        for gate, value in zip(method.gates.values(), gates, strict=True):
            gate.tensors[0].fill_(torch.tensor(value).atanh())
    got, prompts = logits(method, ids), [bank.tensors[0].detach() for bank in method.prompts.values()]
    method.close()
    config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=10, adapter_layers=2)
    model = peft.get_peft_model(backbone.model, config).eval()
    with torch.no_grad():
        for layer, prompt, gate in zip(backbone.model.model.layers, prompts, gates, strict=True):
            layer.self_attn.adaption_prompt.copy_(prompt[None])
            layer.self_attn.adaption_gate.fill_(gate)
        want = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    for layer in backbone.model.model.layers:
        layer.self_attn = layer.self_attn.model
    backbone.detach()
    assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_count(backbone):
    d, heads = 32, 4
    assert entered(LlamaAdapter, backbone).count_trained_parameters() == 1 * (10 * d + heads)  # L - 2, but at least one
    assert entered(LlamaAdapter, backbone, layers=2, length=3).count_trained_parameters() == 2 * (3 * d + heads)


def test_the_published_layers_are_all_but_the_lowest_two():
    assert count_parameters_by_stage("llama_adapter", {}, QWEN2_5_SHAPES["7B"])["stages"] == {
        "target": (0, 26 * (10 * 3584 + 28))
    }


def test_gates_have_no_decay(qwen3):
    method = entered(LlamaAdapter, qwen3)
    assert {name: method.optimizer_group(name).weight_decay for name, _ in method.named_parameters()} == {
        "prompts.1.tensors.0": 0.02,
        "gates.1.tensors.0": 0.0,
    }


@pytest.mark.parametrize("wrong", [{"layers": 3}, {"length": 0}, {"layers": -1}])
def test_wrong_options_are_errors(qwen3, wrong):
    with pytest.raises(UsageError, match="llama_adapter: "):
        LlamaAdapter(qwen3, wrong)
