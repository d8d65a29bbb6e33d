"""What a training step has to prove: that what the optimiser gets to see is the gradient of the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from benchmark.proofs.material import batch, built, items, on, train
from methods.backbone import Backbone
from methods.base import Method
from methods.config import Config
from methods.plan import Plan
from tasks.example import Batch

CLIP = 0.1  # less than any gradient here
H = 5e-4  # of a finite difference
OFF = 1e-2  # how far off float32 may be, in lengths of the gradient
Gradient = dict[str, Tensor]  # by names of parameters


def a_step_follows_the_gradient(cls: type[Method], backbone: Backbone) -> str | None:
    """What a Trainer clips, each slot's alone, is what finite differences say; so it is for a step in parts (T-step).

    In every stage; on the target with all that could learn, packed and then one slot alone.
    """
    if not cls.trains:
        return "learns nothing"
    followed(cls, backbone, cls.Config())
    return None


def followed(cls: type[Method], backbone: Backbone, config: Config) -> None:
    """The same under other options."""
    everything = type(cls.__name__, (cls,), {"learns": lambda self, bank: True})
    built(everything, backbone, config=replace(config, clip=CLIP), then=two_steps)


def two_steps(method: Method) -> None:
    """All slots in one pass, then the first alone in two; a stage of episodes has a proof of its own."""
    if method.stage.batches == "episodes" or not method.owned():
        return
    batches = [
        batch(items(n, n, lead=2, most=6), [row % slots for row in range(n)])
        for n, slots in ((4, method.slots), (3, 1))
    ]
    method.eval().steps = [4] * method.slots
    differ(method, on(method, method.plan(batches[0])))
    train(method, batches, watch := Watch(batches))
    assert watch.followed == len(batches)
    method.eval().parts = 1


def learned(method: Method) -> dict[str, nn.Parameter]:
    return {name: p for own in method.owned().values() for name, p in own.items()}


def gradient(method: Method, plan: Plan) -> Gradient:
    """By every parameter that the losses depend on, accumulated nowhere."""
    named = learned(method)
    found = torch.autograd.grad(method.losses(plan).sum(), [*named.values()], allow_unused=True)
    return {name: g.clone() for name, g in zip(named, found, strict=True) if g is not None}


def length(found: Mapping[str, Tensor]) -> float:
    return float(torch.stack([g.norm() for g in found.values()]).norm())


def differ(method: Method, plan: Plan) -> None:
    """By how much the losses change along one direction of all parameters, against the gradient."""
    found, named, draw = gradient(method, plan), learned(method), torch.Generator().manual_seed(3)
    start = {name: p.detach().clone() for name, p in named.items()}
    along = {name: torch.randn(p.shape, generator=draw).to(p) for name, p in start.items()}

    @torch.no_grad()
    def at(far: float) -> float:
        for name, p in named.items():
            p.copy_(start[name] + far * along[name])
        return method.losses(plan).double().sum().item()

    slope, said = (at(H) - at(-H)) / (2 * H), sum((g * along[name]).sum().item() for name, g in found.items())
    at(0)
    assert abs(slope - said) < OFF * length(found), f"losses change by {slope}, the gradient says {said}"


class Watch(L.Callback):
    """Holds what a step accumulates, and what clipping leaves of it, against the gradient of the whole batch."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches, self.followed = batches, 0
        self.want: Gradient = {}

    def on_train_batch_start(self, trainer: L.Trainer, method: Method, given: Any, step: int) -> None:
        self.want = gradient(method, on(method, method.plan(self.batches[step])))

    def on_before_optimizer_step(self, trainer: L.Trainer, method: Method, optimizer: torch.optim.Optimizer) -> None:
        lie_apart(method)
        self.compare(method)

    def on_train_batch_end(self, trainer: L.Trainer, method: Method, outputs: Any, given: Any, step: int) -> None:
        for own in method.owned().values():
            if found := {name: self.want[name] for name in own if name in self.want}:
                self.want |= {name: g * min(1.0, CLIP / (length(found) + 1e-6)) for name, g in found.items()}
        self.compare(method)
        self.followed, method.parts = self.followed + 1, 2

    def compare(self, method: Method) -> None:
        """Every gradient there should be, and no other."""
        found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        assert found.keys() == self.want.keys(), (
            f"with a gradient, or without: {sorted(found.keys() ^ self.want.keys())[:3]}"
        )
        for name, want in self.want.items():
            off = float((found[name] - want).norm())
            allowed = 1e-3 * float(want.norm()) + 1e-5 * length(self.want)
            assert off <= allowed, f"the gradient of {name}, {float(want.norm())} long, is off by {off}"


def lie_apart(method: Method) -> None:
    """No two gradients in one piece of memory, where scaling either, or adding to it, would change both."""
    found = sorted(
        (p.grad.untyped_storage().data_ptr(), p.grad.storage_offset(), p.grad.numel(), name)
        for name, p in method.named_parameters()
        if p.grad is not None
    )
    for (storage, first, size, name), (other, second, _, beside) in pairwise(found):
        assert storage != other or first + size <= second, f"{name} and {beside} have one gradient"
