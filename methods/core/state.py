"""What a method has learned: by slot, to train, to count, to keep and to take over."""

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor, nn

from methods.core.backbone import Backbone
from methods.core.slot_parameters import SlotParameter
from methods.core.stages import Stage
from tasks.core.types import UsageError


class SlotModule(L.LightningModule):
    """The half of a method that is storage. Its tensors lie in banks, a set per slot or one for all."""

    name: str
    backbone: Backbone
    num_slots: int = 1
    current_stage: Stage | None = None  # the one at hand
    is_loaded: bool = False  # since it began
    strict_loading = False  # a Lightning checkpoint holds what was learned, not the frozen backbone

    def slot_parameters(self) -> dict[str, SlotParameter]:
        return {name: module for name, module in self.named_modules() if isinstance(module, SlotParameter)}

    def trainable_by_slot(self) -> dict[int | None, dict[str, nn.Parameter]]:
        """Parameters that learn, by slot and name; under None what several slots share."""
        rest: int | None = 0 if self.num_slots == 1 else None
        slots = {
            f"{name}.tensors.{i}": i if len(bank.tensors) > 1 else rest
            for name, bank in self.slot_parameters().items()
            for i in range(len(bank.tensors))
        }
        found: dict[int | None, dict[str, nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                found.setdefault(slots.get(name, rest), {})[name] = parameter
        return found

    def count_trained_parameters(self, num_slots: int = 1) -> int:
        """How many numbers learn in the stage at hand, with this many slots."""
        sizes = {slot: sum(p.numel() for p in named.values()) for slot, named in self.trainable_by_slot().items()}
        return sizes.get(None, 0) + num_slots * sizes.get(0, 0)

    def trained_state_dict(self) -> dict[str, Tensor]:
        """All that was learned, with what it rests on (frozen banks, buffers); nothing of the frozen backbone."""
        kept = self.state_dict()
        named = [*self.named_parameters(), *self.named_buffers()]  # tied weights appear once
        return {name: tensor.detach() for name, tensor in named if name in kept}

    def slot_state_dict(self, slot: int = 0) -> dict[str, Tensor]:
        """One slot's part of `learned`, as if it had been alone."""
        own, others = set(), set()
        for name, bank in self.slot_parameters().items():
            names = [f"{name}.tensors.{i}" for i in range(len(bank.tensors))]
            own |= {names[slot if len(names) > 1 else 0]} if names else set()
            others |= set(names)
        state = self.trained_state_dict()
        return {
            _rename_to_first_slot(name) if name in own else name: tensor
            for name, tensor in state.items()
            if name in own or name not in others
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `learned` or `adapter` returned, with as many slots as it holds; what was frozen stays so."""
        banks = self.slot_parameters()
        counts = {name: sum(key.startswith(f"{name}.tensors.") for key in state) for name in banks}
        for name, bank in banks.items():
            learns = bank.is_trainable
            bank.replace([state[f"{name}.tensors.{i}"].clone() for i in range(counts[name])])
            bank.requires_grad_(learns)
        self.num_slots, self.is_loaded = (
            max([1, *(len(bank.tensors) for bank in self.slot_parameters().values())]),
            True,
        )
        self.to(self.backbone.device)
        own = self.trained_state_dict()
        empty = {name for name, count in counts.items() if not count and any(counts.values())}
        if wrong := (own.keys() ^ state.keys()) | empty:
            raise UsageError(f"method {self.name}: this state is not its own; they differ in {sorted(wrong)[:3]}")
        for name, tensor in own.items():
            tensor.copy_(state[name])


def _rename_to_first_slot(name: str) -> str:
    return f"{name.rpartition('.')[0]}.0"
