"""Data-parallel training: several processes with one device each take every step together, by Lightning's DDP.

The result equals that of a single process up to the order of sums:
- All processes iterate over the same batches and take their own rows (`methods.core.step_plan.partition_step`). Rows
  are weighted by the answer tokens of the whole batch, so losses add up; a method multiplies its loss by the number of
  processes because DDP averages gradients.
- Gradients are summed in the backward pass: before a method accumulates some of them (TA-LoRA), before the clipping of
  each slot, and before any optimizer step. Methods that compute gradients outside of this backward pass sum them
  themselves (MeTA-LoRA's episodes, whose tasks are distributed over the processes).
- A slot without rows in a process has no gradient there; DDP finds unused parameters and does not change parameters
  that no process used.
- The first process's dev scores decide for all processes, so that all stop at the same step.
- Dropout is not supported, because the noise would depend on the number of processes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed
from torch.distributed.tensor import DTensor

from methods.base import Method
from methods.core.step_plan import StepOutput
from tasks.core.types import UsageError

StepOutputs = list[tuple[int, StepOutput]]  # (step, what `training_step` returned)


class ExternalEnvironment(LightningEnvironment):
    """Lightning environment for processes that already run and are connected."""

    @property
    def creates_processes_externally(self) -> bool:
        """Always True: Lightning must not start processes."""
        return True

    def local_rank(self) -> int:
        """Rank of this process; all processes are on one machine."""
        return distributed.get_rank()


class ShardAwareDDPStrategy(DDPStrategy):
    """DDP, except for trainable weights that FSDP has sharded: FSDP sums their gradients itself."""

    def configure_ddp(self) -> None:
        """Wrap the module in DDP unless a trainable parameter is sharded."""
        if not any(isinstance(parameter, DTensor) for parameter in get_trainable_parameters(self.lightning_module)):
            super().configure_ddp()


def get_num_processes() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def build_trainer_options(method: Method) -> dict[str, Any]:
    """Device and strategy arguments of a Trainer. Raises UsageError if FSDP does not support the method."""
    device = method.backbone.device
    if get_num_processes() == 1:
        return {"accelerator": device.type, "devices": [device.index or 0] if device.type == "cuda" else 1}
    if len({isinstance(parameter, DTensor) for parameter in get_trainable_parameters(method)}) > 1:
        reason = "trains weights of the backbone, which fsdp shards, and weights of its own, which it does not"
        raise UsageError(f"method {method.name} {reason}; use strategy ddp")
    strategy = ShardAwareDDPStrategy(
        cluster_environment=ExternalEnvironment(), find_unused_parameters=method.num_slots > 1
    )
    return {"accelerator": device.type, "devices": get_num_processes(), "strategy": strategy}


def get_trainable_parameters(method: Method) -> list[torch.nn.Parameter]:
    """All parameters that require a gradient."""
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def gather_full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, gathered from all processes if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def broadcast_object(value: Any) -> Any:
    """Broadcast the first process's value to all processes."""
    if get_num_processes() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def all_gather_outputs(step_outputs: StepOutputs) -> StepOutputs:
    """Gather the outputs of these steps from all processes and combine them (see `sum_step_outputs`)."""
    if get_num_processes() == 1 or not step_outputs:
        return step_outputs
    serializable = []  # without tensors
    for step, outputs in step_outputs:
        watched = {name: float(value) for name, value in outputs.get("watched", {}).items()}
        serializable.append((step, outputs | {"loss": None, "losses": outputs["losses"].tolist(), "watched": watched}))
    gathered: list[StepOutputs] = [[]] * get_num_processes()
    distributed.all_gather_object(gathered, serializable)
    return [(steps[0][0], sum_step_outputs([outputs for _, outputs in steps])) for steps in zip(*gathered, strict=True)]


def sum_step_outputs(process_outputs: Sequence[StepOutput]) -> StepOutput:
    """Combine the outputs of one step from all processes.

    Losses and token counts of a slot are summed; watched values are averaged, weighted by each process's present slots.
    """
    totals: dict[int, list[Any]] = {}
    for outputs in process_outputs:
        for slot, *values in zip(*(outputs[name] for name in ("present", "losses", "tokens", "padded")), strict=True):
            totals[slot] = [old + new for old, new in zip(totals.get(slot, [0.0, 0, 0]), values, strict=True)]
    present = tuple(sorted(totals))
    losses, tokens, padded = zip(*(totals[slot] for slot in present), strict=True)
    watched = {}
    for name in dict.fromkeys(name for outputs in process_outputs for name in outputs["watched"]):
        weighted = [(len(o["present"]), o["watched"][name]) for o in process_outputs if name in o["watched"]]
        watched[name] = sum(weight * value for weight, value in weighted) / sum(weight for weight, _ in weighted)
    return {"losses": torch.tensor(losses), "present": present, "tokens": tokens, "padded": padded, "watched": watched}
