"""TA-LoRA's equations written out, its start, its counts and its options."""

import pytest
import torch
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE
from methods.conformance.fixtures import compute_row_states, make_batch
from methods.core.architecture import QWEN2_5_SHAPES
from methods.core.instantiate import generate_examples
from methods.core.meta_backbone import count_parameters_by_stage
from methods.llama_adapter import LlamaAdapter
from methods.prompt import Prompt
from methods.ta_lora import TALoRA, extract_short_name
from tasks.core.types import UsageError
from tests.support.stages import batch_of, logits
from tests.support.talora import away, bank, ready

READINGS = [
    {}, {"slow_factor": "A"}, {"low_rank": False}, {"gate": "shared"}, {"gate": "none"}, {"gate_fn": "identity"}, {"norm": True},
]  # fmt: skip


# -------------------------------------------------------------------- equations


def delta_of(method: TALoRA, slot: int, layer: int = 0) -> torch.Tensor:
    """(2) and (3), number by number."""
    a0, a = bank(method, "a0", layer).for_slot(slot), bank(method, "a", layer).for_slot(slot)
    if not method.config.low_rank:
        return a0 + a
    b = bank(method, "b", layer).for_slot(slot)
    left, right = (a0, b + a) if method.config.slow_factor == "A" else (a0 + a, b)
    rows = [
        [sum(left[i, k] * right[k, j] for k in range(len(b))) for j in range(right.shape[1])] for i in range(len(a0))
    ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_each_row_is_the_equations_written_out(backbone, reading):
    """The term of one layer, head by head: key and value heads are shared by groups of query heads."""
    method, slots = away(ready(backbone, **reading)), (2, 0, 2)
    block = backbone.model.model.layers[1]
    attention, norm = block.self_attn, block.input_layernorm
    q = torch.randn(3, 4, 3, 8, generator=torch.Generator().manual_seed(0))  # [b, H, s, d_h]
    method.slot_context.activate(slots, q.device)
    with torch.no_grad():
        got = method.compute_attention_term(attention, q)
        for row, slot in enumerate(slots):
            delta = delta_of(method, slot, layer=1)
            if method.config.norm:
                delta = delta / (delta.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight
            key, value = (part(delta).view(5, 2, 8) for part in (attention.k_proj, attention.v_proj))
            if hasattr(attention, "k_norm"):
                key = key / (key.pow(2).mean(-1, keepdim=True) + attention.k_norm.variance_epsilon).sqrt()
                key = key * attention.k_norm.weight
            for head in range(4):
                gate = torch.tensor(1.0)
                if method.config.gate != "none":
                    gate = bank(method, "g", 1).for_slot(slot)[head]
                    gate = gate.tanh() if method.config.gate_fn == "tanh" else gate
                for place in range(3):
                    weight = torch.softmax(key[:, head // 2] @ q[row, head, place] / 8**0.5, 0)
                    assert_close(got[row, place, head], gate * (weight @ value[:, head // 2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["hadamard", "input"])
def test_at_the_input_it_changes_the_shared_prompt(qwen3, form):
    method, slots = away(ready(qwen3, form=form)), (2, 0, 2)
    method.slot_context.activate(slots, qwen3.device)
    found, shared = method.prompt_embeddings(torch.empty(3, 1, 32), torch.ones(3, 1)), method.prompt.tensors[0]
    for row, slot in enumerate(slots):
        a, b, gate = (getattr(method.layers["input"], name) for name in ("a", "b", "g"))
        delta = (method.layers["input"].a0.for_slot(slot) + a.for_slot(slot)) @ b.for_slot(slot)  # [l0, d]
        change = gate.for_slot(slot).tanh() * delta * (shared if form == "hadamard" else qwen3.embedding_std)
        assert_close(found[row], shared + change)
    assert method.compute_attention_term(qwen3.model.model.layers[0].self_attn, torch.empty(1, 4, 1, 8)) is None


def test_with_full_rank_and_no_shared_prompt_it_is_llama_adapter(backbone):
    theirs, ids = LlamaAdapter(backbone, {"length": 5, "layers": 1}), generate_examples(1, 3)[0].prompt_ids
    theirs.begin_stage(TARGET_STAGE, [0])
    away(theirs)
    want, prompt, gate = (
        compute_row_states(theirs, ids),
        theirs.prompts["1"].tensors[0].detach(),
        theirs.gates["1"].tensors[0].detach(),
    )
    method = TALoRA(backbone, {"length": 0, "tokens": 5, "rank": 5, "layers": 1})
    method.load({"layers.1.a0.tensors.0": torch.eye(5), "layers.1.a.tensors.0": torch.zeros(5, 5), "layers.1.b.tensors.0": prompt,
                 "layers.1.g.tensors.0": gate})  # fmt: skip
    assert torch.equal(compute_row_states(method, ids), want)


def test_the_rank_of_delta_is_bounded(qwen3):
    for options, rank in (({}, 2), ({"slow_factor": "A"}, 2), ({"low_rank": False}, 5)):
        method = away(ready(qwen3, **options))
        method.slot_context.activate((0, 1, 2), qwen3.device)
        assert torch.linalg.matrix_rank(method.layers["0"].compute_delta()).tolist() == [rank] * 3


# -------------------------------------------------------------------- start


@pytest.mark.parametrize("stage", [SOURCE_STAGE, TARGET_STAGE])
@pytest.mark.parametrize("form", ["additive", "hadamard", "input"])
def test_at_first_logits_and_the_prompts_gradient_are_prompt_tunings_to_the_bit(backbone, stage, form):
    method, given = ready(backbone, stage, slots=1, form=form).train(), make_batch(generate_examples(6, 4), [0] * 6)
    found = logits(method, given), method.compute_slot_losses(method.plan_step(given)), None
    found[1].sum().backward()
    grad, shared = bank(method, "prompt").tensors[0].grad, bank(method, "prompt").tensors[0].detach().clone()
    plain = Prompt(backbone, {"length": 4})
    plain.load({"prompt.tensors.0": shared})
    assert torch.equal(found[0], logits(plain, given))
    losses = plain.compute_slot_losses(plain.plan_step(given))
    losses.sum().backward()
    assert torch.equal(losses, found[1])
    assert torch.equal(plain.prompt.tensors[0].grad, grad)


def test_without_a_gate_it_is_not_prompt_tuning_at_first(qwen3):
    method, given = ready(qwen3, gate="none"), batch_of(0, 1)
    assert not any(extract_short_name(name) == "g" for name in method.slot_parameters())
    shared = method.prompt.tensors[0].detach().clone()
    found = logits(method, given)
    plain = Prompt(qwen3, {"length": 4})
    plain.load({"prompt.tensors.0": shared})
    assert (found - logits(plain, given)).abs().max() > 1e-3


def test_at_first_only_gates_and_the_prompt_get_gradient(backbone):
    method = ready(backbone)
    for moved in (False, True):
        method.zero_grad()
        method.compute_batch_losses(batch_of(0, 1, 2)).sum().backward()
        grads = {name: parameter.grad.abs().max() > 0 for name, parameter in method.named_parameters()}
        assert {extract_short_name(name) for name, some in grads.items() if some} == (
            {"prompt", "g", "a", "a0", "b"} if moved else {"prompt", "g"}
        )
        away(method)


# -------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("options", "slow", "fast"),
    [
        ({}, 4 * 32 + 2 * (2 * 32 + 5 * 2), 2 * (5 * 2 + 4)),
        ({"slow_factor": "A"}, 4 * 32 + 2 * (2 * 32 + 5 * 2), 2 * (2 * 32 + 4)),
        ({"low_rank": False}, 4 * 32 + 2 * 5 * 32, 2 * (5 * 32 + 4)),
        ({"gate": "none"}, 4 * 32 + 2 * (2 * 32 + 5 * 2), 2 * 5 * 2),
        ({"gate": "shared"}, 4 * 32 + 2 * (2 * 32 + 5 * 2 + 4), 2 * 5 * 2),
        ({"length": 0, "layers": 1}, 2 * 32 + 5 * 2, 5 * 2 + 4),
        ({"form": "input"}, 4 * 32 + 2 * 32 + 4 * 2, 4 * 2 + 1),
    ],
    ids=str,
)
def test_count(qwen3, options, slow, fast):
    assert ready(qwen3, **options).count_trained_parameters(3) == slow + 3 * fast
    assert (
        ready(qwen3, TARGET_STAGE, trainable_on_target="prompt a0 b a g", **options).count_trained_parameters()
        == slow + fast
    )


def test_it_trains_one_and_a_quarter_million_numbers_on_a_backbone_of_seven_billion():
    """All stages: what tasks share, and each task's own."""
    found = count_parameters_by_stage(
        "ta_lora", {"length": 100, "rank": 9, "trainable_on_target": "prompt a0 b a g"}, QWEN2_5_SHAPES["7B"]
    )["stages"]
    assert found == {"prompt": (358_400, 0), "source": (1_265_600, 4_816), "target": (0, 1_270_416)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"form": "multiplicative"}, "no form 'multiplicative'; there are: additive, hadamard, input"),
        ({"gate": "off"}, "per_task, shared, none"),
        ({"start": "near"}, "mean, zero, nearest"),
        ({"trainable_on_target": "prompt c"}, "some of: prompt a0 b a g"),
        ({"trainable_on_target": "prompt g", "start": "nearest"}, "must name a"),
        ({"rank": 0}, "rank"),
        ({"prompt_stage_fraction": 1.0}, "0 <= prompt_stage_fraction < 1"),
        ({"form": "input", "length": 0}, "needs length >= 1"),
        ({"layers": 3}, "3 layers"),
    ],
)
def test_wrong_options_are_errors(qwen3, wrong, said):
    with pytest.raises(UsageError, match="ta_lora: ") as caught:
        TALoRA(qwen3, wrong)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
