"""What a stage of episodes has to prove: that its tasks meet in the outer step, and nowhere else."""

from dataclasses import fields, replace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmark.proofs.material import SLOTS, enter, episode, move, parents, train
from benchmark.proofs.step import lie_apart
from methods.backbone import Backbone
from methods.base import Method, Stage
from methods.config import Config
from tasks.example import Episode


def tasks_of_an_episode_meet_in_their_mean(cls: type[Method], backbone: Backbone) -> str | None:
    """An outer step's gradient is the mean of each task's own, which hangs on its support; till then nothing moves.

    Two tasks together, in either order and in parts, against each alone, at a rate of 0; then a step that is taken.
    """
    stage = next((stage for stage in cls.stages if stage.batches == "episodes"), None)
    if stage is None:
        return "no stage of episodes"
    still: dict[str, Any] = {
        field.name: 0.0 for field in fields(cls.Config) if field.name.endswith("lr") and field.name != "inner_lr"
    }
    method = entered(cls, backbone, stage, replace(cls.Config(), clip=0.0, **still))
    before = {name: tensor.clone() for name, tensor in method.learned().items()}
    one, other = (outer_gradient(method, episode(slot)) for slot in (0, 1))
    for slots, method.parts in (((0, 1), 1), ((1, 0), 1), ((0, 1), 2)):
        found = outer_gradient(method, episode(*slots))
        assert found.keys() == one.keys() == other.keys()
        for name, gradient in found.items():
            assert_close(gradient, (one[name] + other[name]) / 2, rtol=1e-3, atol=1e-6)
    method.parts = 1
    elsewhere = outer_gradient(method, episode(0, stream=5))
    assert any((elsewhere[name] - one[name]).norm() > 1e-2 * one[name].norm() for name in one), (
        "support changes nothing"
    )
    for name, tensor in method.learned().items():
        assert torch.equal(before[name], tensor), name
    method = entered(cls, backbone, stage, cls.Config())
    outer_gradient(method, episode(0, 1))
    assert not all(torch.equal(before[name], tensor) for name, tensor in method.learned().items()), "it never moves"
    return None


def entered(cls: type[Method], backbone: Backbone, stage: Stage, config: Config) -> Method:
    """In its stage of episodes, away from its start."""
    method = cls(backbone, config)
    if states := parents(cls, backbone):
        method.inherit(states)
    enter(method, stage, SLOTS)
    move(method)
    return method


def outer_gradient(method: Method, given: Episode) -> dict[str, Tensor]:
    """What the outer optimiser gets to see of an episode, by parameter."""
    seen = Seen()
    method.steps = [1] * method.slots
    train(method, [given], seen)
    assert seen.gradient, "the outer optimiser was not asked"
    return seen.gradient


class Seen(L.Callback):
    """Looks at the gradient that a step is about to follow."""

    def __init__(self) -> None:
        self.gradient: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, method: Method, optimizer: torch.optim.Optimizer) -> None:
        lie_apart(method)
        named = method.named_parameters()
        self.gradient = {name: p.grad.clone() for name, p in named if p.grad is not None}
