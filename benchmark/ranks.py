"""Several processes that take every training step together, with a device each, by Lightning's DDP.

They arrive at what one process arrives at, up to the order of sums, because of what holds here:
- All walk the same batches, and each takes its own rows (`methods.plan.own`). What it adds to a slot's mean is weighed
  by its answer tokens, so the parts sum to the whole; DDP takes the mean, so a method multiplies by their number.
- Gradients are summed in the backward pass: before a method holds some back (TA-LoRA), before each slot is clipped, and
  before any step. What takes gradients past that pass sums them itself (MeTA-LoRA's episodes: tasks are shared out).
- A slot of which a process has no row has no gradient there; DDP looks for such, and leaves alone what nobody used.
- The first process's dev scores decide for all, so that all stop at the same step.
- Nothing is drawn in a pass: dropout is refused, because noise would depend on who draws.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed
from torch.distributed.tensor import DTensor

from methods.base import Method
from tasks.example import UsageError

Waiting = list[tuple[int, dict[str, Any]]]  # (step, what `training_step` returned)


class There(LightningEnvironment):
    """The processes run already, and know one another."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return distributed.get_rank()


class Shared(DDPStrategy):
    """DDP; where FSDP has the learned weights in shares, it also sums their gradients."""

    def configure_ddp(self) -> None:
        if not any(isinstance(parameter, DTensor) for parameter in learned(self.lightning_module)):
            super().configure_ddp()


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def placed(method: Method) -> dict[str, Any]:
    """What a Trainer is told of devices."""
    device = method.backbone.device
    if count() == 1:
        return {"accelerator": device.type, "devices": [device.index or 0] if device.type == "cuda" else 1}
    if len({isinstance(parameter, DTensor) for parameter in learned(method)}) > 1:
        said = "learns weights inside of the backbone and beside it, and fsdp shares out the backbone's"
        raise UsageError(f"method {method.name} {said}; use strategy ddp")
    strategy = Shared(cluster_environment=There(), find_unused_parameters=method.slots > 1)
    return {"accelerator": device.type, "devices": count(), "strategy": strategy}


def learned(method: Method) -> list[torch.nn.Parameter]:
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which each process may have a share."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def agreed(found: Any) -> Any:
    """What the first process found."""
    if count() == 1:
        return found
    given = [found]
    distributed.broadcast_object_list(given)
    return given[0]


def gathered(waiting: Waiting) -> Waiting:
    """The losses of these steps as one process would have them: a slot's parts, summed."""
    if count() == 1 or not waiting:
        return waiting
    plain = [(step, outputs | {"loss": None, "losses": outputs["losses"].tolist(),
                               "watched": {name: float(v) for name, v in outputs.get("watched", {}).items()}})
             for step, outputs in waiting]  # fmt: skip
    every: list[Waiting] = [[]] * count()
    distributed.all_gather_object(every, plain)
    return [(steps[0][0], summed([outputs for _, outputs in steps])) for steps in zip(*every, strict=True)]


def summed(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One step's outputs; what is watched is a mean over the slots that a process had."""
    slots: dict[int, list[Any]] = {}
    for outputs in parts:
        for slot, *own in zip(*(outputs[name] for name in ("present", "losses", "tokens", "padded")), strict=True):
            slots[slot] = [old + new for old, new in zip(slots.get(slot, [0.0, 0, 0]), own, strict=True)]
    present = tuple(sorted(slots))
    losses, tokens, padded = zip(*(slots[slot] for slot in present), strict=True)
    watched = {}
    for name in dict.fromkeys(name for outputs in parts for name in outputs["watched"]):
        own = [(len(o["present"]), o["watched"][name]) for o in parts if name in o["watched"]]
        watched[name] = sum(weight * value for weight, value in own) / sum(weight for weight, _ in own)
    return {"losses": torch.tensor(losses), "present": present, "tokens": tokens, "padded": padded, "watched": watched}
