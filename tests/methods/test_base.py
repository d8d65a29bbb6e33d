"""Options, stages and rates, which all methods have from the base class."""

import pytest
import torch

from methods import load_method
from methods.base import TARGET_STAGE, Method
from methods.conformance.fixtures import make_batch, run_training_steps
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples, instantiate_method
from methods.lora import LoRA
from methods.mpt import MPT
from tasks.core.types import UsageError


def test_every_name_loads_and_says_what_it_is(method_name: str):
    found = load_method(method_name)
    assert issubclass(found, Method)
    assert found.name == method_name
    assert found.trained_part


def test_own_methods_load_by_path_and_wrong_names_get_a_hint():
    assert load_method("methods.lora:LoRA") is LoRA
    assert load_method("lora:rank-2") is load_method("methods.lora:LoRA:rank-2") is LoRA
    with pytest.raises(UsageError, match="did you mean 'lora'"):
        load_method("lroa")
    with pytest.raises(UsageError, match="cannot be imported"):
        load_method("methods.lora:LORA")
    with pytest.raises(UsageError, match="not a subclass"):
        load_method("methods.lora:LowRankDelta")


def test_a_wrong_option_is_an_error_with_a_hint(method_name: str):
    with pytest.raises(UsageError, match="did you mean 'weight_decay'"):
        load_method(method_name).parse_config({"weigth_decay": 0.1})


@pytest.mark.parametrize(
    ("values", "message"),
    [({"rank": "eight"}, "takes int"), ({"rank": 2.5}, "takes int"), ({"rslora": 1}, "takes bool"), ({"rank": True}, "int"),
     ({"schedule": "stairs"}, "linear, cosine, constant"), ({"rank": 0}, "rank >= 1")],
)  # fmt: skip
def test_a_wrong_value_is_an_error(values: dict, message: str):
    with pytest.raises(UsageError, match=message):
        LoRA.parse_config(values)


def test_numbers_arrive_as_yaml_spells_them():
    config = LoRA.parse_config({"lr": "1e-3", "rank": "4", "alpha": 8})
    assert (config.lr, config.rank, config.alpha) == (1e-3, 4, 8.0)


def test_a_schedule_warms_up_and_ends(qwen3: Backbone):
    for schedule, quarter, end in (("linear", 0.75, 0.01), ("cosine", 0.854, 0.0003), ("constant", 1.0, 1.0)):
        method = LoRA(qwen3, {"schedule": schedule, "warmup": 0.1})
        paces = [method.lr_multiplier(step, 110) for step in range(110)]
        assert paces[0] == pytest.approx(1 / 12)
        assert paces[11] == max(paces) == 1.0
        assert paces[11 + 25] == pytest.approx(quarter, abs=0.01)
        assert paces[-1] == pytest.approx(end, rel=0.2)


def test_a_step_is_adamw_written_out_at_each_parameters_own_rate_and_pace(qwen3: Backbone):
    """Two slots of unequal length, a rate and a decay for the prompt and others for its factors."""
    method = instantiate_method(
        MPT, qwen3, 2, config=MPT.parse_config({"weight_decay": 0.3, "clip": 0.0, "warmup": 0.4})
    )
    method.slot_steps, batches = (
        [3, 6],
        [make_batch(generate_examples(4, step, max_text_length=8), [0, 1, 1, 0]) for step in range(3)],
    )
    start = {name: p.detach().clone() for name, p in method.named_parameters()}
    found, want = [], {name: (p, 0.0, 0.0) for name, p in start.items()}
    keep = method.on_before_optimizer_step
    method.on_before_optimizer_step = lambda optimizer: (
        found.append({name: p.grad.clone() for name, p in method.named_parameters()}), keep(optimizer)
    )  # fmt: skip
    run_training_steps(method, batches)
    for done, gradient in enumerate(found):
        for name, g in gradient.items():
            (p, first, second), slot = want[name], int(name[-1])
            lr, decay = (0.3 * qwen3.embedding_std, 0.3) if name.startswith("prompt") else (1e-2, 0.0)
            warm = (2, 3)[slot]  # 40 % of 3 and of 6 steps, rounded up
            steps = method.slot_steps[slot]
            lr *= (done + 1) / (warm + 1) if done < warm else 1 - (done - warm) / (steps - warm)
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            mean, square = first / (1 - 0.9 ** (done + 1)), second / (1 - 0.999 ** (done + 1))
            want[name] = p * (1 - lr * decay) - lr * mean / (square.sqrt() + 1e-8), first, second
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.detach(), want[name][0], rtol=1e-5, atol=1e-7)


def test_a_slots_start_does_not_depend_on_its_neighbours(qwen3: Backbone):
    for name in ("lora", "prompt"):
        method = load_method(name)(qwen3)
        method.begin_stage(TARGET_STAGE, [5, 6], [generate_examples(3, 1), generate_examples(3, 2)])
        second = {name: tensor.clone() for name, tensor in method.slot_state_dict(1).items()}
        torch.manual_seed(99)
        method.begin_stage(TARGET_STAGE, [6], [generate_examples(3, 2)])
        assert all(torch.equal(second[name], tensor) for name, tensor in method.slot_state_dict(0).items())
        method.begin_stage(TARGET_STAGE, [5], [generate_examples(3, 2)])
        assert any(not torch.equal(second[name], tensor) for name, tensor in method.slot_state_dict(0).items())


def test_only_answers_are_trained_on_whatever_stands_in_the_padding(qwen3: Backbone):
    method = LoRA(qwen3)
    method.begin_stage(TARGET_STAGE, [0, 1])
    given = make_batch(generate_examples(4, 3), [0, 1, 1, 0])
    losses = method.compute_batch_losses(given)
    noise = given.input_ids.clone()
    noise[given.attention_mask == 0] = 77
    assert torch.equal(method.compute_batch_losses(given._replace(input_ids=noise)), losses)
    alone = [
        method.compute_batch_losses(
            make_batch(
                [item for item, s in zip(generate_examples(4, 3), given.slots, strict=True) if s == slot], [slot] * 2
            )
        )
        for slot in (0, 1)
    ]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_a_closed_method_says_so(qwen3: Backbone):
    method = LoRA(qwen3)
    method.begin_stage(TARGET_STAGE, [0])
    LoRA(qwen3).begin_stage(TARGET_STAGE, [0])
    ids = torch.arange(5)[None]
    with pytest.raises(RuntimeError, match="was closed"):
        method.compute_hidden_states(ids, torch.ones_like(ids), (0,))


def test_another_methods_state_is_refused(qwen3: Backbone):
    method = LoRA(qwen3, {"sites": "q"})
    method.begin_stage(TARGET_STAGE, [0])
    state = method.trained_state_dict()
    with pytest.raises(UsageError, match="not its own"):
        LoRA(qwen3, {"sites": "q v"}).load(state)
