import pytest
import torch
from torch import nn
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup
from methods.baselines import ZeroShot
from methods.core.slot_parameters import SlotParameter
from methods.lora import LowRankDelta
from methods.moe_lora import ExpertDelta, MoELoRA
from tasks.core.types import UsageError
from tests.support.stages import away, batch_of, logits, rows_of, started, step

LINEAR = nn.Linear(6, 5)


def experts(n: int, *slots: int, rank: int = 4) -> ExpertDelta:
    rows = rows_of(*slots)
    task, gate = SlotParameter(rows), SlotParameter(rows, is_shared=True)
    draw = torch.Generator().manual_seed(0)
    task.replace([torch.randn(64, generator=draw) for _ in range(3)])
    gate.replace([torch.randn(n, 64, generator=draw) / 8])
    return started(ExpertDelta(LINEAR, n, task, gate, rank, 2.0, 0.0, rows))


def test_each_row_is_the_paper_written_out():
    slots = (2, 0, 2, 0)
    delta, x, y = experts(2, *slots), torch.randn(4, 7, 6), torch.randn(4, 7, 5)
    task, gate = delta.get_task_and_gate()
    a, b = delta.a.tensors[0].view(2, 2, 6), delta.b.tensors[0].view(5, 2, 2).transpose(0, 1)  # per expert
    want = y.clone()
    for row, slot in enumerate(slots):
        weights = torch.softmax(gate.tensors[0] @ task.tensors[slot], 0)
        for place in range(7):
            want[row, place] += 2.0 * sum(weights[i] * (b[i] @ (a[i] @ x[row, place])) for i in range(2))
    assert_close(delta(x, y), want)


def test_one_expert_is_lora_of_the_same_rank():
    delta, x, y = experts(1, 0, 1), torch.randn(2, 3, 6), torch.randn(2, 3, 5)
    lora = LowRankDelta(LINEAR, 4, 2.0, 0.0, rows_of(0, 0))
    lora.a.replace([delta.a.tensors[0].detach()])
    lora.b.replace([delta.b.tensors[0].detach()])
    assert_close(delta(x, y), lora(x, y))


def test_a_gate_that_is_sure_selects_one_expert():
    delta, x = experts(2, 1, 1), torch.randn(2, 3, 6)
    task, gate = delta.get_task_and_gate()
    with torch.no_grad():
        gate.tensors[0].copy_(torch.stack([-task.tensors[1], task.tensors[1]]))
    chosen = 2.0 * x @ delta.a.tensors[0][2:].T @ delta.b.tensors[0][:, 2:].T
    assert_close(delta(x, torch.zeros(2, 3, 5)), chosen)


@pytest.mark.parametrize("gate", ["shared", "per_linear"])
def test_count_is_the_closed_form_in_both_stages(backbone, gate):
    method = MoELoRA(backbone, {"gate": gate})
    linears = backbone.get_linears("q k v o").values()
    gates = 8 * 64 * (1 if gate == "shared" else len(linears))
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    assert (
        method.count_trained_parameters(3) == sum(16 * sum(linear.weight.shape) for linear in linears) + gates + 3 * 64
    )
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert method.count_trained_parameters(1) == gates + 64


@pytest.mark.parametrize("gate", ["shared", "per_linear"])
def test_only_the_embedding_of_an_absent_source_stays(qwen3, gate):
    method = MoELoRA(qwen3, {"weight_decay": 0.1, "gate": gate})
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    assert not torch.equal(method.task.tensors[0], method.task.tensors[1])  # though the seed is the same
    away(method)
    before = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    step(method, batch_of(0, 2))
    still = {name for name, tensor in method.trained_state_dict().items() if torch.equal(tensor, before[name])}
    assert still == {"task.tensors.1"}


def test_a_target_starts_from_the_mean_embedding_and_its_own_copy_of_the_gate(qwen3):
    method = MoELoRA(qwen3)
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    mean = torch.stack(list(method.task.tensors)).detach().mean(0)
    gate = method.gate.tensors[0].detach().clone()
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert all(torch.equal(task, mean) for task in method.task.tensors)
    assert all(torch.equal(own, gate) for own in method.gate.tensors)
    assert {slot: set(part) for slot, part in method.trainable_by_slot().items()} == {
        slot: {f"task.tensors.{slot}", f"gate.tensors.{slot}"} for slot in (0, 1)
    }


@pytest.mark.parametrize("gate", ["shared", "per_linear"])
def test_it_starts_as_the_frozen_model_and_merges_for_each_task(backbone, gate):
    batch = batch_of(1, 1)
    frozen = logits(ZeroShot(backbone), batch)
    method = MoELoRA(backbone, {"gate": gate})
    method.begin_stage(SOURCE_STAGE, [0, 0])
    assert torch.equal(logits(method, batch), frozen)
    away(method)
    want, weights = logits(method, batch), method.merged_weights(1)
    method.close()
    kept = {name: backbone.model.get_parameter(name).detach().clone() for name in weights}
    with torch.no_grad():
        for name, weight in weights.items():
            backbone.model.get_parameter(name).copy_(weight)
        found = logits(ZeroShot(backbone), batch)
        for name, weight in kept.items():
            backbone.model.get_parameter(name).copy_(weight)
    assert_close(found, want, rtol=1e-4, atol=1e-4)


def test_experts_alone_decay_and_a_target_has_a_rate_of_its_own(qwen3):
    method = MoELoRA(qwen3, {"weight_decay": 0.1, "lr": 0.5, "target_lr": 0.25, "gate": "per_linear"})
    for stage, lr in ((SOURCE_STAGE, 0.5), (TARGET_STAGE, 0.25)):
        method.begin_stage(stage, [0])
        rates = {name.split(".")[-3]: method.optimizer_group(name) for name, _ in method.named_parameters()}
        assert rates == {
            "a": OptimizerGroup(lr, 0.1),
            "b": OptimizerGroup(lr, 0.1),
            "gate": OptimizerGroup(lr),
            "task": OptimizerGroup(lr),
        }


def test_experts_have_to_divide_the_rank():
    with pytest.raises(UsageError, match="do not divide"):
        MoELoRA.parse_config({"experts": 3})
