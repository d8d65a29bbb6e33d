"""Several processes that take every training step together, with a device each, by Lightning's DDP.

They arrive at what one process arrives at, up to the order of sums, because of what holds here:
- All walk the same batches, and each takes its own rows (`methods.core.step_plan.own`). What it adds to a slot's mean is weighed
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
from tasks.core.types import UsageError

StepOutputs = list[tuple[int, dict[str, Any]]]  # (step, what `training_step` returned)


class ExternalEnvironment(LightningEnvironment):
    """The processes run already, and know one another."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return distributed.get_rank()


class ShardAwareDDPStrategy(DDPStrategy):
    """DDP; where FSDP has the learned weights in shares, it also sums their gradients."""

    def configure_ddp(self) -> None:
        if not any(isinstance(parameter, DTensor) for parameter in get_trainable_parameters(self.lightning_module)):
            super().configure_ddp()


def get_num_processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def build_trainer_options(method: Method) -> dict[str, Any]:
    """What a Trainer is told of devices."""
    device = method.backbone.device
    if get_num_processes() == 1:
        return {"accelerator": device.type, "devices": [device.index or 0] if device.type == "cuda" else 1}
    if len({isinstance(parameter, DTensor) for parameter in get_trainable_parameters(method)}) > 1:
        said = "learns weights inside of the backbone and beside it, and fsdp shares out the backbone's"
        raise UsageError(f"method {method.name} {said}; use strategy ddp")
    strategy = ShardAwareDDPStrategy(
        cluster_environment=ExternalEnvironment(), find_unused_parameters=method.num_slots > 1
    )
    return {"accelerator": device.type, "devices": get_num_processes(), "strategy": strategy}


def get_trainable_parameters(method: Method) -> list[torch.nn.Parameter]:
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def gather_full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which each process may have a share."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def broadcast_object(value: Any) -> Any:
    """What the first process found."""
    if get_num_processes() == 1:
        return value
    given = [value]
    distributed.broadcast_object_list(given)
    return given[0]


def all_gather_outputs(step_outputs: StepOutputs) -> StepOutputs:
    """The losses of these steps as one process would have them: a slot's parts, summed."""
    if get_num_processes() == 1 or not step_outputs:
        return step_outputs
    plain = [(step, outputs | {"loss": None, "losses": outputs["losses"].tolist(),
                               "watched": {name: float(v) for name, v in outputs.get("watched", {}).items()}})
             for step, outputs in step_outputs]  # fmt: skip
    every: list[StepOutputs] = [[]] * get_num_processes()
    distributed.all_gather_object(every, plain)
    return [(steps[0][0], sum_step_outputs([outputs for _, outputs in steps])) for steps in zip(*every, strict=True)]


def sum_step_outputs(process_outputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One step's outputs; what is watched is a mean over the slots that a process had."""
    slots: dict[int, list[Any]] = {}
    for outputs in process_outputs:
        for slot, *own in zip(*(outputs[name] for name in ("present", "losses", "tokens", "padded")), strict=True):
            slots[slot] = [old + new for old, new in zip(slots.get(slot, [0.0, 0, 0]), own, strict=True)]
    present = tuple(sorted(slots))
    losses, tokens, padded = zip(*(slots[slot] for slot in present), strict=True)
    watched = {}
    for name in dict.fromkeys(name for outputs in process_outputs for name in outputs["watched"]):
        own = [(len(o["present"]), o["watched"][name]) for o in process_outputs if name in o["watched"]]
        watched[name] = sum(weight * value for weight, value in own) / sum(weight for weight, _ in own)
    return {"losses": torch.tensor(losses), "present": present, "tokens": tokens, "padded": padded, "watched": watched}
