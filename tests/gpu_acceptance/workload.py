"""What the checks work on: random items, methods brought to the target, and a plain training loop that is timed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods import load_method
from methods.base import Method
from methods.conformance.fixtures import make_batch, move_to_backbone
from methods.core.backbone import Backbone
from methods.core.instantiate import instantiate_method, perturb_parameters
from methods.core.step_plan import StepPlan
from tasks.core.types import EncodedExample, Example
from tests.gpu_acceptance.device import Device

AWAY = 0.02  # how far parameters are moved from their start: the size of the backbone's own


@dataclass(frozen=True)
class Size:
    """How large a check is: rows of a cell's batch, their longest prompt, cells of a pack, steps that are timed."""

    rows: int = 8
    length: int = 128
    pack: int = 8
    steps: int = 3
    warm: int = 2


def items(count: int, stream: int, size: Size, vocabulary: int, *, even: bool = False) -> list[EncodedExample]:
    """Random prompts with a common lead and one of three answers; `even`: no lead, and all of the greatest length."""
    draw = torch.Generator().manual_seed(stream)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, vocabulary, (number,), generator=draw).tolist())

    lead, choices, found = () if even else ids(size.length // 4), (ids(1), ids(2), ids(3)), []
    for i in range(count):
        rest = size.length - len(lead)
        rest = rest if even else int(torch.randint(rest // 3, rest + 1, (1,), generator=draw))
        example = Example(f"random:{stream}:{i}", "random", "", ("abc"[i % 3],), ("a", "b", "c"))
        answer = choices[2] if even else choices[i % 3]
        found.append(EncodedExample(example, lead + ids(rest), (*answer, 1), choices, len(lead)))
    return found


def plans(method: Method, size: Size, count: int, *, even: bool = False) -> list[StepPlan]:
    """Training steps on the device: every slot with rows of its own."""
    vocabulary, found = method.backbone.config.vocab_size, []
    for step in range(count):
        rows = [
            (slot, item)
            for slot in range(method.num_slots)
            for item in items(size.rows, 100 * slot + step, size, vocabulary, even=even)
        ]
        slots, of = zip(*rows, strict=True)
        found.append(move_to_backbone(method, method.plan_step(make_batch(of, slots))))
    return found


@contextmanager
def ready(
    name: str, backbone: Backbone, slots: int, *, away: bool = True, options: Mapping[str, Any] | None = None
) -> Iterator[Method]:
    """A method on the target with so many slots, and the backbone as it was afterwards."""
    kind, then = load_method(name), (lambda method: perturb_parameters(method, AWAY)) if away else None
    try:
        yield instantiate_method(
            kind, backbone, slots, perturb=False, config=kind.parse_config(options or {}), after_stage_begin=then
        )
    finally:
        backbone.detach()


def trained(device: Device, method: Method, given: Sequence[StepPlan], warm: int) -> tuple[float, list[float]]:
    """Seconds of a step after `warm` of them, and the losses of all: what a Trainer does, without one."""
    method.train().slot_steps = [len(given)] * method.num_slots
    made = method.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    losses, start = [], device.clock()
    for i, one in enumerate(given):
        if i == warm:
            start = device.clock()
        optimizer.zero_grad()
        loss = method.training_step(one, i)["loss"]
        loss.backward()
        method.on_before_optimizer_step(optimizer)
        method.configure_gradient_clipping(optimizer)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    seconds = (device.clock() - start) / max(1, len(given) - warm)
    method.zero_grad()
    method.eval()
    return seconds, torch.stack(losses).tolist()


def apart(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|, in fp32."""
    found, wanted = found.detach().float(), wanted.detach().float()
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-12))
