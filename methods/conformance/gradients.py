"""Checks that the optimiser receives the gradient of the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from methods.base import Method
from methods.conformance.fixtures import make_batch, move_to_backbone, run_trainer
from methods.core.backbone import Backbone
from methods.core.config import MethodConfig
from methods.core.instantiate import generate_examples, instantiate_method
from methods.core.step_plan import StepPlan
from tasks.core.types import Batch

CLIP_NORM = 0.1  # less than any gradient here
FINITE_DIFFERENCE_STEP = 5e-4  # step size of the central difference
RELATIVE_TOLERANCE = 1e-2  # float32 error, relative to the norm of the gradient
NamedGradients = dict[str, Tensor]  # by parameter name


def check_step_gradient(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check gradients, clipped per slot, against finite differences, with and without micro-batches (T-step).

    Runs in every stage, with all parameters trainable on the target, packed and for one slot. Finite differences are
    left out if the method holds a part constant in the backward pass (`has_exact_gradient`).
    """
    if not method_class.uses_gradient_descent:
        return "learns nothing"
    check_step_gradient_with_config(method_class, backbone, method_class.Config())
    return None


def check_step_gradient_with_config(method_class: type[Method], backbone: Backbone, config: MethodConfig) -> None:
    """`check_step_gradient` with a given configuration."""
    everything = type(method_class.__name__, (method_class,), {"is_trainable_on_target": lambda self, bank: True})
    instantiate_method(everything, backbone, config=replace(config, clip=CLIP_NORM), after_stage_begin=check_two_steps)


def check_two_steps(method: Method) -> None:
    """Check a step of all slots, then one of the first slot in two micro-batches; skips stages of episodes."""
    if method.current_stage.batch_mode == "episodes" or not method.trainable_by_slot():
        return
    batches = [
        make_batch(generate_examples(n, n, prefix_length=2, max_text_length=6), [row % slots for row in range(n)])
        for n, slots in ((4, method.num_slots), (3, 1))
    ]
    method.eval().slot_steps = [4] * method.num_slots
    if method.has_exact_gradient:
        check_finite_difference(method, move_to_backbone(method, method.plan_step(batches[0])))
    run_trainer(method, batches, watch := StepGradientCallback(batches))
    assert watch.num_checked_steps == len(batches)
    method.eval().num_micro_batches = 1


def get_trainable_parameters(method: Method) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of a method by name."""
    return {name: p for parameters in method.trainable_by_slot().values() for name, p in parameters.items()}


def compute_gradients(method: Method, step_plan: StepPlan) -> NamedGradients:
    """Gradients of the summed losses for every parameter that they depend on, without accumulation."""
    named = get_trainable_parameters(method)
    gradients = torch.autograd.grad(method.compute_slot_losses(step_plan).sum(), [*named.values()], allow_unused=True)
    return {name: g.clone() for name, g in zip(named, gradients, strict=True) if g is not None}


def compute_norm(gradients: Mapping[str, Tensor]) -> float:
    """Return the norm of all gradients together."""
    return float(torch.stack([g.norm() for g in gradients.values()]).norm())


def check_finite_difference(method: Method, step_plan: StepPlan) -> None:
    """Compare the directional derivative along a random direction with the gradient."""
    gradients = compute_gradients(method, step_plan)
    named = get_trainable_parameters(method)
    draw = torch.Generator().manual_seed(3)
    start = {name: p.detach().clone() for name, p in named.items()}
    along = {name: torch.randn(p.shape, generator=draw).to(p) for name, p in start.items()}

    @torch.no_grad()
    def at(far: float) -> float:
        for name, p in named.items():
            p.copy_(start[name] + far * along[name])
        return method.compute_slot_losses(step_plan).double().sum().item()

    slope = (at(FINITE_DIFFERENCE_STEP) - at(-FINITE_DIFFERENCE_STEP)) / (2 * FINITE_DIFFERENCE_STEP)
    predicted = sum((g * along[name]).sum().item() for name, g in gradients.items())
    at(0)
    assert abs(slope - predicted) < RELATIVE_TOLERANCE * compute_norm(gradients), (
        f"losses change by {slope}, the gradient says {predicted}"
    )


class StepGradientCallback(L.Callback):
    """Compare accumulated and clipped gradients of a step with the gradient of the whole batch."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.num_checked_steps = 0
        self.expected_gradients: NamedGradients = {}

    def on_train_batch_start(self, trainer: L.Trainer, method: Method, given: Any, step: int) -> None:
        self.expected_gradients = compute_gradients(
            method, move_to_backbone(method, method.plan_step(self.batches[step]))
        )

    def on_before_optimizer_step(self, trainer: L.Trainer, method: Method, optimizer: torch.optim.Optimizer) -> None:
        check_gradients_not_aliased(method)
        self.compare_gradients(method)

    def on_train_batch_end(self, trainer: L.Trainer, method: Method, outputs: Any, given: Any, step: int) -> None:
        for parameters in method.trainable_by_slot().values():
            if slot_gradients := {
                name: self.expected_gradients[name] for name in parameters if name in self.expected_gradients
            }:
                self.expected_gradients |= {
                    name: g * min(1.0, CLIP_NORM / (compute_norm(slot_gradients) + 1e-6))
                    for name, g in slot_gradients.items()
                }
        self.compare_gradients(method)
        self.num_checked_steps += 1
        method.num_micro_batches = 2

    def compare_gradients(self, method: Method) -> None:
        """Check that exactly the expected gradients exist and that they agree."""
        gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        assert gradients.keys() == self.expected_gradients.keys(), (
            f"with a gradient, or without: {sorted(gradients.keys() ^ self.expected_gradients.keys())[:3]}"
        )
        for name, expected in self.expected_gradients.items():
            off = float((gradients[name] - expected).norm())
            allowed = 1e-3 * float(expected.norm()) + 1e-5 * compute_norm(self.expected_gradients)
            assert off <= allowed, f"the gradient of {name}, {float(expected.norm())} long, is off by {off}"


def check_gradients_not_aliased(method: Method) -> None:
    """Check that no two gradients share memory, where scaling one would change the other."""
    regions = sorted(
        (p.grad.untyped_storage().data_ptr(), p.grad.storage_offset(), p.grad.numel(), name)
        for name, p in method.named_parameters()
        if p.grad is not None
    )
    for (storage, first, size, name), (other, second, _, beside) in pairwise(regions):
        assert storage != other or first + size <= second, f"{name} and {beside} have one gradient"
