import pytest
import torch
from torch import nn
from torch.testing import assert_close

from methods.attempt import ATTEMPT, mix_prompts
from methods.base import TARGET_STAGE, OptimizerGroup
from tasks.core.types import UsageError
from tests.support.stages import away, batch_of, prompts, step

DRAW = torch.Generator().manual_seed(0)
OWN, SOURCES, QUERY = (torch.randn(*shape, generator=DRAW) for shape in ((2, 3, 8), (4, 3, 8), (2, 8)))


def ready(backbone, slots=2, options=None, count=3) -> ATTEMPT:
    method = ATTEMPT(backbone, {"length": 4, "inner": 5} | (options or {}))
    method.load_source_states(prompts(count, backbone))
    method.begin_stage(TARGET_STAGE, list(range(slots)))
    return method


def test_a_texts_prompt_is_the_paper_written_out(qwen3):
    method, slots = away(ready(qwen3, 3)), (2, 0, 2)
    method.slot_context.activate(slots, qwen3.device)
    embeds, source = torch.randn(3, 6, 32), torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 5 + [0], [0, 0, 1, 1, 1, 1]]).bool()
    found = method.prompt_embeddings(embeds, source)
    pooled = [prompt.max(0).values for prompt in method.source_prompts]
    tau = 0.18 * 32 * torch.stack(pooled).square().mean().sqrt()
    for row, slot in enumerate(slots):
        text = torch.stack([embeds[row, place] for place in range(6) if source[row, place]]).max(0).values
        own, norm = method.prompt.tensors[slot], nn.LayerNorm(32)
        norm.load_state_dict({"weight": method.weight.tensors[slot], "bias": method.bias.tensors[slot]})
        g = norm(method.up.tensors[slot] @ nn.functional.silu(method.down.tensors[slot] @ text))
        scores = torch.stack([phat @ g / tau for phat in [*pooled, own.max(0).values]])
        share = torch.softmax(scores, 0)
        want = own + sum(a * prompt for a, prompt in zip(share, [*method.source_prompts, own], strict=True))
        assert_close(found[row], want)


def test_at_a_high_temperature_the_mixture_is_the_mean():
    mean = torch.stack([torch.cat([SOURCES, own[None]]).mean(0) for own in OWN])
    assert_close(mix_prompts(OWN, SOURCES, QUERY, 1e9), OWN + mean)


def test_sources_and_own_prompt_all_alike_double_it():
    same = SOURCES[:1].expand(4, -1, -1)
    assert_close(mix_prompts(same[:2], same, QUERY, 0.18), 2 * same[:2])


def test_a_sure_query_takes_one_prompt_and_with_no_other_the_own_counts_twice():
    assert_close(mix_prompts(OWN, SOURCES, 1e4 * SOURCES[2].amax(0).expand(2, -1), 1e-3)[0], OWN[0] + SOURCES[2])
    assert_close(mix_prompts(OWN, OWN[:1], QUERY, 0.18)[0], 2 * OWN[0])


def test_answers_do_not_reach_the_prompt(qwen3):
    method, batch = away(ready(qwen3)), batch_of(0, 1)
    fronts = []
    method.prompt_embeddings = lambda embeds, source: (
        fronts.append(ATTEMPT.prompt_embeddings(method, embeds, source)) or fronts[-1]
    )
    other = batch.input_ids.where(batch.labels == -100, (batch.input_ids + 7) % 40)
    assert not torch.equal(other, batch.input_ids)
    for ids in (batch.input_ids, other):
        method.compute_batch_losses(batch._replace(input_ids=ids, labels=ids.where(batch.labels != -100, -100)))
    assert torch.equal(fronts[0], fronts[1])


def test_sources_never_move_and_own_parts_do_each_at_its_rate(qwen3):
    method = away(ready(qwen3, options={"attention_lr": 0.01, "weight_decay": 0.1}))
    before = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    step(method, batch_of(0, 0))
    moved = {name for name, tensor in method.trained_state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {f"{bank}.tensors.0" for bank in ("prompt", "down", "up", "weight", "bias")}
    assert method.optimizer_group("prompt.tensors.0").lr == pytest.approx(0.3 * qwen3.embedding_std)
    assert (method.optimizer_group("up.tensors.1"), method.optimizer_group("weight.tensors.1")) == (
        OptimizerGroup(0.01, 0.1),
        OptimizerGroup(0.01),
    )


def test_the_network_can_choose_at_this_temperature_whatever_the_prompts_size(qwen3):
    """With the authors' e d it could not: the best of 7 prompts would have at most 0.1433 of 1."""
    for size in (0.02, 5.0):
        sources = size * torch.randn(6, 20, 768, generator=torch.Generator().manual_seed(1))
        query = nn.functional.layer_norm(sources[0].amax(0) - sources[1:].amax(1).mean(0), (768,))[None]
        target = torch.zeros(1, 20, 768)
        share = (mix_prompts(target, sources, query, 0.18) * sources[0]).sum() / sources[0].square().sum()
        assert share > 0.3


def test_count_and_start(backbone):
    method, width = ready(backbone), backbone.hidden_size
    assert method.count_trained_parameters(1) == 4 * width + 2 * 5 * width + 2 * width
    assert all(torch.equal(prompt, method.source_prompts[0]) for prompt in method.prompt.tensors)
    assert method.down.tensors[0].std().item() == pytest.approx(0.01, rel=0.3)
    assert not torch.equal(method.down.tensors[0], method.down.tensors[1])


def test_a_stored_cell_brings_its_sources_along(qwen3):
    method = away(ready(qwen3))
    state, alone = method.slot_state_dict(1), ATTEMPT(qwen3, {"length": 4, "inner": 5})
    assert state["source_prompts"].shape == (3, 4, 32)
    alone.load(state)
    batch = batch_of(0)
    embeds = qwen3.embed(batch.input_ids)
    alone.slot_context.activate((0,), qwen3.device)
    found = alone.prompt_embeddings(embeds, batch.attention_mask.bool())
    method.slot_context.activate((1,), qwen3.device)
    assert_close(found, method.prompt_embeddings(embeds, batch.attention_mask.bool()))


def test_without_sources_it_does_not_start(qwen3):
    with pytest.raises(UsageError, match="come first"):
        ATTEMPT(qwen3).begin_stage(TARGET_STAGE, [0])
