"""Options, stages and rates, which all methods have from the base class."""

import pytest
import torch

from benchmark.proofs.material import batch, items
from methods import load
from methods.backbone import Backbone
from methods.base import TARGET, Method
from methods.lora import LoRA
from tasks.example import UsageError


def test_every_name_loads_and_says_what_it_is(method_name: str):
    found = load(method_name)
    assert issubclass(found, Method)
    assert found.name == method_name
    assert found.what


def test_own_methods_load_by_path_and_wrong_names_get_a_hint():
    assert load("methods.lora:LoRA") is LoRA
    assert load("lora:rank-2") is load("methods.lora:LoRA:rank-2") is LoRA
    with pytest.raises(UsageError, match="did you mean 'lora'"):
        load("lroa")
    with pytest.raises(UsageError, match="cannot be imported"):
        load("methods.lora:LORA")
    with pytest.raises(UsageError, match="no subclass"):
        load("methods.lora:LowRank")


def test_a_wrong_option_is_an_error_with_a_hint(method_name: str):
    with pytest.raises(UsageError, match="did you mean 'weight_decay'"):
        load(method_name).configure({"weigth_decay": 0.1})


@pytest.mark.parametrize(
    ("values", "message"),
    [({"rank": "eight"}, "takes int"), ({"rank": 2.5}, "takes int"), ({"rslora": 1}, "takes bool"), ({"rank": True}, "int"),
     ({"schedule": "stairs"}, "linear, cosine, constant"), ({"rank": 0}, "rank >= 1")],
)  # fmt: skip
def test_a_wrong_value_is_an_error(values: dict, message: str):
    with pytest.raises(UsageError, match=message):
        LoRA.configure(values)


def test_numbers_arrive_as_yaml_spells_them():
    config = LoRA.configure({"lr": "1e-3", "rank": "4", "alpha": 8})
    assert (config.lr, config.rank, config.alpha) == (1e-3, 4, 8.0)


def test_a_schedule_warms_up_and_ends(qwen3: Backbone):
    for schedule, middle, end in (("linear", 0.5, 0.01), ("cosine", 0.5, 0.001), ("constant", 1.0, 1.0)):
        method = LoRA(qwen3, {"schedule": schedule, "warmup": 0.1})
        paces = [method.pace(step, 110) for step in range(110)]
        assert paces[0] == pytest.approx(1 / 12)
        assert paces[11] == max(paces) == 1.0
        assert paces[11 + 49] == pytest.approx(middle, abs=0.02)
        assert paces[-1] == pytest.approx(end, abs=0.011)


def test_a_slots_start_does_not_depend_on_its_neighbours(qwen3: Backbone):
    for name in ("lora", "prompt"):
        method = load(name)(qwen3)
        method.enter(TARGET, [5, 6], [items(3, 1), items(3, 2)])
        second = {name: tensor.clone() for name, tensor in method.adapter(1).items()}
        torch.manual_seed(99)
        method.enter(TARGET, [6], [items(3, 2)])
        assert all(torch.equal(second[name], tensor) for name, tensor in method.adapter(0).items())
        method.enter(TARGET, [5], [items(3, 2)])
        assert any(not torch.equal(second[name], tensor) for name, tensor in method.adapter(0).items())


def test_only_answers_are_trained_on_whatever_stands_in_the_padding(qwen3: Backbone):
    method = LoRA(qwen3)
    method.enter(TARGET, [0, 1])
    given = batch(items(4, 3), [0, 1, 1, 0])
    losses = method.loss(given)
    noise = given.input_ids.clone()
    noise[given.attention_mask == 0] = 77
    assert torch.equal(method.loss(given._replace(input_ids=noise)), losses)
    alone = [
        method.loss(batch([item for item, s in zip(items(4, 3), given.slots, strict=True) if s == slot], [slot] * 2))
        for slot in (0, 1)
    ]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_a_closed_method_says_so(qwen3: Backbone):
    method = LoRA(qwen3)
    method.enter(TARGET, [0])
    LoRA(qwen3).enter(TARGET, [0])
    ids = torch.arange(5)[None]
    with pytest.raises(RuntimeError, match="was closed"):
        method.hidden(ids, torch.ones_like(ids), (0,))


def test_another_methods_state_is_refused(qwen3: Backbone):
    method = LoRA(qwen3, {"sites": "q"})
    method.enter(TARGET, [0])
    state = method.learned()
    with pytest.raises(UsageError, match="not its own"):
        LoRA(qwen3, {"sites": "q v"}).load(state)
