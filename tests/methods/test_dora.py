import peft
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from methods.conformance.checks import check_step_gradient
from methods.core.backbone import Backbone
from methods.dora import DoRA, MagnitudeDelta
from tests.support.single import away, entered, ids_of, rows_of

SITES = "q k v o gate up down"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_each_row_is_the_paper_written_out():
    torch.manual_seed(0)
    linear, slots = nn.Linear(6, 5), (2, 0, 2, 0)
    delta = MagnitudeDelta(linear, 4, 2.0, 0.0, rows_of(*slots))
    for _ in range(3):
        delta.add_slot(torch.Generator())
    away(delta)
    x = torch.randn(4, 7, 6)
    found = delta(x, linear(x))
    for row, slot in enumerate(slots):
        direction = linear.weight + 2.0 * delta.b.tensors[slot] @ delta.a.tensors[slot]
        weight = delta.magnitude.tensors[slot][:, None] * direction / direction.norm(dim=1, keepdim=True)
        assert_close(found[row], x[row] @ weight.T + linear.bias, rtol=1e-4, atol=1e-5)
        assert_close(delta.get_delta_weight(slot), weight - linear.weight, rtol=1e-4, atol=1e-5)


def test_the_magnitude_starts_at_the_norms_of_the_weight_and_is_no_weight_of_the_backbone():
    linear = nn.Linear(6, 5)
    delta = MagnitudeDelta(linear, 4, 2.0, 0.0, rows_of(0))
    delta.add_slot(torch.Generator())
    assert_close(delta.magnitude.tensors[0].data, linear.weight.data.norm(dim=1))
    assert {name for name, _ in delta.named_parameters()} == {"a.tensors.0", "b.tensors.0", "magnitude.tensors.0"}


def peft_model(backbone: Backbone, **options) -> peft.PeftModel:
    """With the names of `use_dora`, all seven linears."""
    config = peft.LoraConfig(use_dora=True, target_modules=PROJECTIONS, task_type="CAUSAL_LM", **options)
    return peft.get_peft_model(backbone.model, config)


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_computes_the_same_loss_and_gradients(backbone: Backbone, rslora: bool):
    ids = ids_of(2, 12)
    method = entered(DoRA, backbone, spread=0.2, rank=4, alpha=12.0, rslora=rslora, sites=SITES)

    def loss(predicted: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(predicted[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    hidden = method.compute_hidden_states(ids, torch.ones_like(ids), (0, 0))
    ours = loss(backbone.compute_logits(hidden))
    ours.backward()
    parts = {"lora_A": "a", "lora_B": "b", "lora_magnitude_vector": "magnitude"}
    copied = {
        (key, theirs): getattr(delta, part).tensors[0]
        for key, delta in method.deltas.items()
        for theirs, part in parts.items()
    }
    method.close()
    model = peft_model(backbone, r=4, lora_alpha=12, use_rslora=rslora)
    weights = {
        (key, part): getattr(
            model.base_model.model.get_submodule(backbone.get_module_path(key)), part
        )["default"].weight
        for key, part in copied
    }  # fmt: skip
    for place, weight in weights.items():
        weight.data.copy_(copied[place].data)
    theirs = loss(model(input_ids=ids).logits)
    theirs.backward()
    assert abs(ours.item() - theirs.item()) <= 1e-5
    for place, weight in weights.items():
        assert_close(copied[place].grad, weight.grad, rtol=1e-4, atol=1e-5)
    model.unload()
    backbone.model.requires_grad_(False)


def test_the_exported_names_are_those_that_peft_saves(qwen3: Backbone):
    config, tensors = entered(DoRA, qwen3, rank=4, sites=SITES).peft_format()
    qwen3.detach()
    model = peft_model(qwen3, r=4)
    theirs = peft.get_peft_model_state_dict(model)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {name: t.shape for name, t in theirs.items()}
    assert config["use_dora"]
    model.unload()
    qwen3.model.requires_grad_(False)


class ConstantNorms(MagnitudeDelta):
    """Keeps the norms of its first forward pass, of which the gradient of `MagnitudeDelta` is then the true one."""

    def compute_norms(self, a, b):
        kept = self.__dict__.setdefault("kept", {})
        return kept.setdefault(self.slot_context.present_slots, super().compute_norms(a, b))


class DoRAWithConstantNorms(DoRA):
    has_exact_gradient = True

    def build_delta(self, linear, *args):
        return ConstantNorms(linear, *args)


def test_a_step_follows_the_gradient_under_constant_norms_and_not_under_its_own(backbone: Backbone):
    check_step_gradient(DoRAWithConstantNorms, backbone)
    own = type("Own", (DoRA,), {"has_exact_gradient": True})
    with pytest.raises(AssertionError, match="the gradient says"):
        check_step_gradient(own, backbone)


def test_dropout_acts_on_both_terms_as_in_peft(qwen3: Backbone):
    linear = nn.Linear(6, 5)
    delta = MagnitudeDelta(linear, 4, 2.0, 0.5, rows_of(0))
    delta.add_slot(torch.Generator())
    away(delta).train()
    delta.apply_dropout = lambda x: 2 * x
    x = torch.randn(2, 3, 6)
    a, b, magnitude = (part.tensors[0] for part in (delta.a, delta.b, delta.magnitude))
    factor = magnitude / (linear.weight + 2.0 * b @ a).norm(dim=1)
    want = linear(x) + (factor - 1) * (2 * x @ linear.weight.T) + factor * 2.0 * (2 * x @ a.T @ b.T)
    assert_close(delta(x, linear(x)), want, rtol=1e-4, atol=1e-5)


def test_only_the_magnitude_has_no_weight_decay(qwen3: Backbone):
    method = entered(DoRA, qwen3, weight_decay=0.1)
    decays = {name.split(".")[-3]: method.optimizer_group(name).weight_decay for name, _ in method.named_parameters()}
    assert decays == {"a": 0.1, "b": 0.1, "magnitude": 0.0}


def test_count_is_the_closed_form(backbone: Backbone):
    """r (d_in + d_out) + d_out for every linear."""
    method = entered(DoRA, backbone, slots=2, rank=4, sites=SITES)
    shapes = [linear.weight.shape for linear in backbone.get_linears(SITES).values()]
    assert method.count_trained_parameters(1) == sum(4 * (i + o) + o for o, i in shapes)
