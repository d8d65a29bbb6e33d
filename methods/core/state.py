"""State of a method: trainable parameters per slot, parameter counts, saving and loading."""

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor, nn

from methods.core.backbone import Backbone
from methods.core.slot_parameters import SlotParameter
from methods.core.stages import Stage
from tasks.core.types import UsageError


class SlotModule(L.LightningModule):
    """Storage part of a method: its tensors are `SlotParameter`s, with one tensor per slot or one for all slots."""

    name: str
    backbone: Backbone
    num_slots: int = 1
    current_stage: Stage | None = None
    is_loaded: bool = False  # whether `load` was called since the stage began
    strict_loading = False  # a Lightning checkpoint holds the method's tensors, not the frozen backbone

    def slot_parameters(self) -> dict[str, SlotParameter]:
        """All `SlotParameter`s by module name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, SlotParameter)}

    def trainable_by_slot(self) -> dict[int | None, dict[str, nn.Parameter]]:
        """Trainable parameters by slot and name; the key None holds the parameters that several slots share."""
        shared_slot: int | None = 0 if self.num_slots == 1 else None
        slot_by_name = {
            f"{name}.tensors.{i}": i if len(slot_parameter.tensors) > 1 else shared_slot
            for name, slot_parameter in self.slot_parameters().items()
            for i in range(len(slot_parameter.tensors))
        }
        trainable: dict[int | None, dict[str, nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                trainable.setdefault(slot_by_name.get(name, shared_slot), {})[name] = parameter
        return trainable

    def count_trained_parameters(self, num_slots: int = 1) -> int:
        """Number of trainable parameters in the current stage, for this many slots."""
        sizes = {slot: sum(p.numel() for p in named.values()) for slot, named in self.trainable_by_slot().items()}
        return sizes.get(None, 0) + num_slots * sizes.get(0, 0)

    def trained_state_dict(self) -> dict[str, Tensor]:
        """All tensors of the method: trained ones, frozen `SlotParameter`s and buffers, but not the frozen backbone."""
        state_dict = self.state_dict()
        named_tensors = [*self.named_parameters(), *self.named_buffers()]  # tied weights appear once
        return {name: tensor.detach() for name, tensor in named_tensors if name in state_dict}

    def slot_state_dict(self, slot: int = 0) -> dict[str, Tensor]:
        """One slot's part of `trained_state_dict`, named as if it were the only slot."""
        slot_names = set()
        all_names = set()
        for name, slot_parameter in self.slot_parameters().items():
            names = [f"{name}.tensors.{i}" for i in range(len(slot_parameter.tensors))]
            if names:
                slot_names.add(names[slot if len(names) > 1 else 0])
            all_names |= set(names)
        state = self.trained_state_dict()
        return {
            _rename_to_first_slot(name) if name in slot_names else name: tensor
            for name, tensor in state.items()
            if name in slot_names or name not in all_names
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load what `trained_state_dict` or `slot_state_dict` returned, with as many slots as it contains.

        Frozen tensors stay frozen. Raises UsageError if the names differ from the method's own.
        """
        slot_parameters = self.slot_parameters()
        counts = {name: sum(key.startswith(f"{name}.tensors.") for key in state) for name in slot_parameters}
        for name, slot_parameter in slot_parameters.items():
            is_trainable = slot_parameter.is_trainable
            slot_parameter.replace([state[f"{name}.tensors.{i}"].clone() for i in range(counts[name])])
            slot_parameter.requires_grad_(is_trainable)
        self.num_slots = max([1, *counts.values()])
        self.is_loaded = True
        self.to(self.backbone.device)
        own_state = self.trained_state_dict()
        empty = {name for name, count in counts.items() if not count and any(counts.values())}
        if wrong := (own_state.keys() ^ state.keys()) | empty:
            raise UsageError(f"method {self.name}: this state is not its own; they differ in {sorted(wrong)[:3]}")
        for name, tensor in own_state.items():
            tensor.copy_(state[name])


def _rename_to_first_slot(name: str) -> str:
    """Parameter name with slot index 0: `x.tensors.3` -> `x.tensors.0`."""
    return f"{name.rpartition('.')[0]}.0"
