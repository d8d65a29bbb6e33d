import pytest
import torch

from methods.base import TARGET_STAGE
from methods.conformance.fixtures import make_batch, run_training_steps
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples
from methods.full import Full
from tasks.core.types import UsageError


def test_every_weight_learns_and_the_head_stays_tied(backbone: Backbone):
    method = Full(backbone)
    method.begin_stage(TARGET_STAGE, [0])
    assert method.count_trained_parameters() == sum(p.numel() for p in backbone.model.parameters())
    assert not any(module.training for module in method.train().weights.modules())  # no dropout of the backbone's own
    method.compute_slot_losses(method.plan_step(make_batch(generate_examples(4, 1), [0] * 4))).sum().backward()
    # the bias of k shifts all scores of a query alike but for the rotation, so its gradient is small, not zero
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    state = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    method.load(state)
    assert backbone.model.lm_head.weight is backbone.model.get_input_embeddings().weight
    assert not any(name.endswith("lm_head.weight") for name in state)


def test_a_second_cell_starts_from_the_pretrained_weights(qwen3: Backbone):
    before = {name: p.detach().clone() for name, p in qwen3.model.named_parameters()}
    method = Full(qwen3, {"lr": 1e-2})
    method.begin_stage(TARGET_STAGE, [0])
    method.slot_steps = [2]
    run_training_steps(method, [make_batch(generate_examples(4, 1), [0] * 4)] * 2)
    assert not all(torch.equal(before[name], p) for name, p in qwen3.model.named_parameters())
    method.begin_stage(TARGET_STAGE, [1])
    assert all(torch.equal(before[name], p) for name, p in qwen3.model.named_parameters())
    assert all(p.requires_grad for p in qwen3.model.parameters())


def test_norms_and_biases_have_no_decay(backbone: Backbone):
    method = Full(backbone, {"weight_decay": 0.1})
    method.begin_stage(TARGET_STAGE, [0])
    decays = {name: method.optimizer_group(name).weight_decay for name, _ in method.named_parameters()}
    assert {name for name, decay in decays.items() if decay == 0} == {n for n in decays if "norm" in n or "bias" in n}


def test_a_pack_is_refused(qwen3: Backbone):
    with pytest.raises(UsageError, match="one cell at a time"):
        Full(qwen3).begin_stage(TARGET_STAGE, [0, 1])
