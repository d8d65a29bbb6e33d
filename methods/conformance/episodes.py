"""Check of a stage of episodes: its tasks interact only in the outer step."""

from dataclasses import fields, replace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.testing import assert_close

from methods.base import Method, Stage
from methods.conformance.fixtures import make_episode, run_trainer
from methods.conformance.gradients import check_gradients_not_aliased
from methods.core.backbone import Backbone
from methods.core.config import MethodConfig
from methods.core.instantiate import NUM_SLOTS, begin_synthetic_stage, create_source_states, perturb_parameters
from tasks.core.types import Episode


def check_episode_gradient_mean(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that the outer gradient is the mean over tasks and depends on the support; only its step moves weights.

    Compares two tasks together, in both orders and in micro-batches, with each alone at a learning rate of 0; then
    takes a real step.
    """
    stage = next((stage for stage in method_class.stages if stage.batch_mode == "episodes"), None)
    if stage is None:
        return "no stage of episodes"
    still: dict[str, Any] = {
        field.name: 0.0
        for field in fields(method_class.Config)
        if field.name.endswith("lr") and field.name != "inner_lr"
    }
    method = begin_episode_stage(method_class, backbone, stage, replace(method_class.Config(), clip=0.0, **still))
    before = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    one, other = (compute_outer_gradient(method, make_episode(slot)) for slot in (0, 1))
    for slots, method.num_micro_batches in (((0, 1), 1), ((1, 0), 1), ((0, 1), 2)):
        found = compute_outer_gradient(method, make_episode(*slots))
        assert found.keys() == one.keys() == other.keys()
        for name, gradient in found.items():
            assert_close(gradient, (one[name] + other[name]) / 2, rtol=1e-3, atol=1e-6)
    method.num_micro_batches = 1
    elsewhere = compute_outer_gradient(method, make_episode(0, seed=5))
    assert any((elsewhere[name] - one[name]).norm() > 1e-2 * one[name].norm() for name in one), (
        "support changes nothing"
    )
    for name, tensor in method.trained_state_dict().items():
        assert torch.equal(before[name], tensor), name
    method = begin_episode_stage(method_class, backbone, stage, method_class.Config())
    compute_outer_gradient(method, make_episode(0, 1))
    assert not all(torch.equal(before[name], tensor) for name, tensor in method.trained_state_dict().items()), (
        "it never moves"
    )
    return None


def begin_episode_stage(method_class: type[Method], backbone: Backbone, stage: Stage, config: MethodConfig) -> Method:
    """Create a method in its stage of episodes, with perturbed parameters."""
    method = method_class(backbone, config)
    if states := create_source_states(method_class, backbone):
        method.load_source_states(states)
    begin_synthetic_stage(method, stage, NUM_SLOTS)
    perturb_parameters(method)
    return method


def compute_outer_gradient(method: Method, task_episode: Episode) -> dict[str, Tensor]:
    """Gradient of an episode that the outer optimiser receives, by parameter name."""
    recorder = GradientRecorder()
    method.slot_steps = [1] * method.num_slots
    run_trainer(method, [task_episode], recorder)
    assert recorder.gradients, "the outer optimiser was not asked"
    return recorder.gradients


class GradientRecorder(L.Callback):
    """Record the gradients before an optimiser step."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, method: Method, optimizer: torch.optim.Optimizer) -> None:
        check_gradients_not_aliased(method)
        named = method.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
