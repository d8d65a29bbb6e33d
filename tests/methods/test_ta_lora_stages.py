"""What of TA-LoRA learns in which stage, how fast, where a target starts, and what is kept at inference."""

import pytest
import torch
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup
from methods.conformance.fixtures import compute_row_states, make_batch, run_training_steps
from methods.core.instantiate import generate_examples
from methods.core.losses import compute_mean_loss
from methods.prompt import Prompt
from methods.ta_lora import PROMPT_STAGE, TALoRA, extract_short_name
from tasks.core.types import UsageError
from tests.support.stages import batch_of
from tests.support.talora import SMALL, away, bank, named, ready

# -------------------------------------------------------------------- stages


def test_first_the_prompt_alone_learns_as_plain_prompt_tuning(qwen3):
    method, given = ready(qwen3, PROMPT_STAGE, gate="none"), batch_of(0, 1, 2)
    assert {name for part in method.trainable_by_slot().values() for name in part} == {"prompt.tensors.0"}
    plain = Prompt(qwen3, {"length": 4, "start": "common"})
    plain.begin_stage(TARGET_STAGE, [0], [generate_examples(3, 1)])
    assert torch.equal(plain.prompt.tensors[0], method.prompt.tensors[0])
    method = ready(qwen3, PROMPT_STAGE, gate="none")
    found = method.compute_batch_losses(given).detach()
    plain = Prompt(qwen3, {"length": 4})
    plain.load({"prompt.tensors.0": method.prompt.tensors[0].detach().clone()})
    assert torch.equal(plain.compute_batch_losses(given).detach(), found)
    assert method.optimizer_group("prompt.tensors.0") == OptimizerGroup(0.3 * qwen3.embedding_std)


def test_stages_share_the_sources_budget(qwen3):
    method = TALoRA(qwen3, SMALL)
    assert [method.budget_fraction(stage) for stage in method.stages] == pytest.approx([1 / 3, 2 / 3, 1])
    for options in ({"prompt_stage_fraction": 0.0}, {"length": 0}):
        assert [TALoRA(qwen3, SMALL | options).budget_fraction(stage) for stage in method.stages] == [0, 1, 1]


def test_rates_have_two_speeds(qwen3):
    sigma = 0.3 * qwen3.embedding_std
    for stage, rests in ((SOURCE_STAGE, True), (TARGET_STAGE, False)):
        method = ready(qwen3, stage, trainable_on_target="prompt a0 b a g", slow_lr_multiplier=0.01, lr=0.5)
        rates = {extract_short_name(name): method.optimizer_group(name) for name, _ in method.named_parameters()}
        assert rates == {
            "prompt": OptimizerGroup(pytest.approx(0.01 * sigma), 0.0, rests),
            "a0": OptimizerGroup(0.005, 0.02), "b": OptimizerGroup(0.005, 0.02), "a": OptimizerGroup(0.5), "g": OptimizerGroup(0.5),
        }  # fmt: skip
    assert not ready(qwen3, freeze_prompt_in_warmup=False).optimizer_group("prompt.tensors.0").frozen_during_warmup


def test_an_absent_task_keeps_its_fast_weights(qwen3):
    method = away(ready(qwen3))
    method.slot_steps = [40] * 3
    before = named(method, "prompt", "a0", "b", "a", "g")
    made = method.configure_optimizers()
    method.configure_optimizers = lambda: made  # one optimiser for both parts
    run_training_steps(method, [batch_of(0, 1, 2)])
    fit_before = named(method, "prompt", "a0", "b", "a", "g")
    run_training_steps(method, [batch_of(0, 2, seed=seed) for seed in range(20)])
    still = {name for name, tensor in method.trained_state_dict().items() if torch.equal(tensor, fit_before[name])}
    assert still == {f"layers.{layer}.{name}.tensors.1" for layer in (0, 1) for name in ("a", "g")}
    assert not any(torch.equal(before[name], tensor) for name, tensor in method.trained_state_dict().items())


def test_the_prompt_rests_while_the_sources_warm_up(qwen3):
    method = ready(qwen3, warmup=0.4)
    method.slot_steps, moved = [10] * 3, []
    start = named(method, "prompt")["prompt.tensors.0"]
    inner = method.on_before_optimizer_step
    method.on_before_optimizer_step = lambda optimizer: (
        moved.append(not torch.equal(start, method.prompt.tensors[0])), inner(optimizer)
    )  # fmt: skip
    before = named(method, "g")
    run_training_steps(method, [batch_of(0, 1, 2, seed=seed) for seed in range(10)])
    assert moved == [False] * 5 + [True] * 5  # asked before the step
    assert not any(torch.equal(before[name], tensor) for name, tensor in named(method, "g").items())


@pytest.mark.parametrize("stage", [SOURCE_STAGE, TARGET_STAGE])
def test_slow_weights_step_on_the_mean_of_several_gradients(qwen3, stage):
    method, slow = ready(qwen3, stage, slow_update_interval=3, trainable_on_target="prompt a0 b a g"), {}
    for step in range(1, 7):
        for parameter in method.parameters():
            parameter.grad = torch.full_like(parameter, float(step))
        method.on_before_optimizer_step(None)
        for name, parameter in method.named_parameters():
            value = None if parameter.grad is None else parameter.grad.unique().item()
            if extract_short_name(name) in ("a", "g") or stage == TARGET_STAGE:
                assert value == step
            else:
                slow.setdefault(name, []).append(value)
    assert bool(slow) == (stage == SOURCE_STAGE)
    assert all(values == [None, None, pytest.approx(2), None, None, pytest.approx(5)] for values in slow.values())


def test_skipped_slow_weights_stay_bit_by_bit(qwen3):
    method = away(ready(qwen3, slow_update_interval=4, warmup=0.0))
    method.slot_steps = [8] * 3
    before = named(method, "prompt", "a0", "b"), named(method, "a", "g")
    for steps, same in ((3, True), (1, False)):
        run_training_steps(method, [batch_of(0, 1, 2, seed=seed) for seed in range(steps)])
        after = named(method, "prompt", "a0", "b")
        assert all(torch.equal(after[name], tensor) == same for name, tensor in before[0].items())
    assert not any(torch.equal(named(method, "a", "g")[name], tensor) for name, tensor in before[1].items())


def test_few_shot_a_target_leaves_the_slow_directions_alone(qwen3):
    method = away(ready(qwen3, TARGET_STAGE, slots=2))
    assert {extract_short_name(name) for name in method.trainable_by_slot()[1]} == {"prompt", "a", "g"}
    before, rest = named(method, "a0", "b"), named(method, "prompt", "a", "g")
    method.slot_steps = [5, 5]
    run_training_steps(method, [batch_of(0, 1, 1, seed=seed) for seed in range(5)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in named(method, "a0", "b").items())
    assert not any(torch.equal(tensor, rest[name]) for name, tensor in named(method, "prompt", "a", "g").items())


def test_on_full_data_each_target_has_its_own_copy_of_all(qwen3):
    method = ready(qwen3, TARGET_STAGE, slots=2, trainable_on_target="prompt a0 b a g")
    assert {extract_short_name(name) for name in method.trainable_by_slot()[1]} == {"prompt", "a0", "b", "a", "g"}
    assert all(len(bank.tensors) == 2 for bank in method.slot_parameters().values())


# -------------------------------------------------------------------- where a target starts


def learned_sources(backbone, **options) -> TALoRA:
    return away(ready(backbone, **options))


@pytest.mark.parametrize("gate", ["per_task", "shared"])
@pytest.mark.parametrize("gate_start", ["zero", "source"])
@pytest.mark.parametrize("start", ["mean", "zero"])
def test_a_target_starts_from_the_sources_mean_or_from_zero(qwen3, start, gate_start, gate):
    method = learned_sources(qwen3, start=start, gate_start=gate_start, gate=gate)
    a, g = (torch.stack(list(bank(method, name).tensors)).detach().mean(0) for name in ("a", "g"))
    shared = named(method, "prompt", "a0", "b")
    method.begin_stage(TARGET_STAGE, [0, 1], [generate_examples(4, 1), generate_examples(4, 2)])
    for slot in (0, 1):
        assert torch.equal(bank(method, "a").for_slot(slot), a if start == "mean" else torch.zeros_like(a))
        assert torch.equal(bank(method, "g").for_slot(slot), g if gate_start == "source" else torch.zeros_like(g))
        assert torch.equal(method.prompt.for_slot(slot), shared["prompt.tensors.0"])
        assert torch.equal(bank(method, "b", 1).for_slot(slot), shared["layers.1.b.tensors.0"])


@pytest.mark.parametrize("gate_start", ["zero", "source"])
def test_the_nearest_source_is_the_one_under_which_the_examples_are_likeliest(qwen3, gate_start):
    method = learned_sources(qwen3, start="nearest", gate_start=gate_start)
    state = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    train = [generate_examples(6, 31), generate_examples(6, 77)]
    losses = [[compute_mean_loss(method, source, own) for source in range(3)] for own in train]
    nearest = [own.index(min(own)) for own in losses]
    method.begin_stage(TARGET_STAGE, [0, 1], train)
    for slot, source in enumerate(nearest):
        for layer in (0, 1):
            assert torch.equal(bank(method, "a", layer).for_slot(slot), state[f"layers.{layer}.a.tensors.{source}"])
            g = state[f"layers.{layer}.g.tensors.{source}"]
            assert torch.equal(
                bank(method, "g", layer).for_slot(slot), g if gate_start == "source" else torch.zeros_like(g)
            )
    assert len(set(nearest)) == 2, "a fixed choice would pass"
    with pytest.raises(UsageError, match="training examples"):
        learned_sources(qwen3, start="nearest").begin_stage(TARGET_STAGE, [0])


def test_options_that_come_late_change_nothing_on_the_sources(qwen3):
    found = []
    for late in ({}, {"trainable_on_target": "a", "start": "nearest", "gate_start": "source"}):
        assert set(late) in (set(), set(TALoRA.target_only_options))
        method = ready(qwen3, **late)
        method.slot_steps = [4] * 3
        run_training_steps(method, [batch_of(0, 1, 2, seed=seed) for seed in range(4)])
        found.append({name: tensor.clone() for name, tensor in method.trained_state_dict().items()})
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


# -------------------------------------------------------------------- at inference


def test_keys_and_values_of_a_task_are_made_once(backbone):
    method, ids, calls = away(ready(backbone)), generate_examples(1, 3)[0].prompt_ids, []
    project = backbone.model.model.layers[1].self_attn.k_proj
    hook = project.register_forward_hook(lambda _module, inputs, _y: calls.append(inputs[0].shape[-2] == 5))
    try:
        for slot in (0, 1, 0, 1, 0):
            compute_row_states(method, ids, slot)
        assert sum(calls) == 2  # of both tasks, once; the others are the text's own
        with torch.no_grad():
            bank(method, "a", 1).tensors[1] += 0.1
        compute_row_states(method, ids, 0)
        assert sum(calls) == 2
        compute_row_states(method, ids, 1)
        assert sum(calls) == 3
    finally:
        hook.remove()


def test_what_is_kept_follows_every_change(qwen3):
    method, ids = away(ready(qwen3, TARGET_STAGE, slots=2)), generate_examples(1, 3)[0].prompt_ids
    method.slot_steps = [9, 9]

    def fresh() -> torch.Tensor:
        """With the graph recorded nothing is kept."""
        row = torch.tensor([ids])
        return method.compute_hidden_states(row, torch.ones_like(row), (1,))[0].detach()

    state, before = (
        {name: tensor.clone() for name, tensor in method.trained_state_dict().items()},
        compute_row_states(method, ids, 1),
    )
    run_training_steps(method, [batch_of(0, 1)] * 3)  # AdamW, in one fused kernel
    assert_close(compute_row_states(method, ids, 1), fresh(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(compute_row_states(method, ids, 1), before, atol=1e-3)
    method.load(state)
    assert_close(compute_row_states(method, ids, 1), before, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        assert_close(compute_row_states(method, ids, 1), before, rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------- to look at


def test_what_there_is_to_see_after_the_sources(qwen3):
    """Where a_t = 0 the slow weights give all of Delta_t; where a_t = A_0 they leave A_0 B of 2 A_0 B: a quarter."""
    method = ready(qwen3, sources=2)
    assert all(share == 1 for share in list(method.source_diagnostics(["a", "b"]).values())[1])
    with torch.no_grad():
        for layer in method.layers.values():
            layer.a.tensors[0].copy_(layer.a0.tensors[0])
            layer.a.tensors[1].copy_(layer.a0.tensors[0])
    alike, shares = method.source_diagnostics(["a", "b"]).values()
    assert_close(torch.tensor(alike), torch.ones(2, 2))
    assert shares == pytest.approx([0.75] * len(method.layers))


def test_gates_are_watched_on_the_sources_alone(qwen3):
    method = away(ready(qwen3))
    rows = make_batch(generate_examples(3, 5), [0, 1, 2])
    watched = method.training_step(rows, 0)["watched"]
    gates = torch.stack([own.tanh() for own in method.layers["0"].g.tensors])
    assert_close(watched["gate, layer 0"], gates.abs().mean())
    assert "watched" not in away(ready(qwen3, TARGET_STAGE)).training_step(rows, 0)
