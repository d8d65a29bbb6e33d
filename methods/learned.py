"""What a method has learned: by slot, to train, to count, to keep and to take over."""

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor, nn

from methods.backbone import Backbone
from methods.bank import Bank
from methods.stage import Stage
from tasks.example import UsageError


class Learned(L.LightningModule):
    """The half of a method that is storage. Its tensors lie in banks, a set per slot or one for all."""

    name: str
    backbone: Backbone
    slots: int = 1
    stage: Stage | None = None  # the one at hand
    loaded: bool = False  # since it began
    strict_loading = False  # a Lightning checkpoint holds what was learned, not the frozen backbone

    def banks(self) -> dict[str, Bank]:
        return {name: module for name, module in self.named_modules() if isinstance(module, Bank)}

    def owned(self) -> dict[int | None, dict[str, nn.Parameter]]:
        """Parameters that learn, by slot and name; under None what several slots share."""
        rest: int | None = 0 if self.slots == 1 else None
        slots = {
            f"{name}.sets.{i}": i if len(bank.sets) > 1 else rest
            for name, bank in self.banks().items()
            for i in range(len(bank.sets))
        }
        found: dict[int | None, dict[str, nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                found.setdefault(slots.get(name, rest), {})[name] = parameter
        return found

    def trained_parameters(self, slots: int = 1) -> int:
        """How many numbers learn in the stage at hand, with this many slots."""
        sizes = {slot: sum(p.numel() for p in named.values()) for slot, named in self.owned().items()}
        return sizes.get(None, 0) + slots * sizes.get(0, 0)

    def learned(self) -> dict[str, Tensor]:
        """All that was learned, with what it rests on (frozen banks, buffers); nothing of the frozen backbone."""
        kept = self.state_dict()
        named = [*self.named_parameters(), *self.named_buffers()]  # tied weights appear once
        return {name: tensor.detach() for name, tensor in named if name in kept}

    def adapter(self, slot: int = 0) -> dict[str, Tensor]:
        """One slot's part of `learned`, as if it had been alone."""
        own, others = set(), set()
        for name, bank in self.banks().items():
            names = [f"{name}.sets.{i}" for i in range(len(bank.sets))]
            own |= {names[slot if len(names) > 1 else 0]} if names else set()
            others |= set(names)
        state = self.learned()
        return {
            _alone(name) if name in own else name: tensor
            for name, tensor in state.items()
            if name in own or name not in others
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `learned` or `adapter` returned, with as many slots as it holds; what was frozen stays so."""
        banks = self.banks()
        counts = {name: sum(key.startswith(f"{name}.sets.") for key in state) for name in banks}
        for name, bank in banks.items():
            learns = bank.learns
            bank.fill([state[f"{name}.sets.{i}"].clone() for i in range(counts[name])])
            bank.requires_grad_(learns)
        self.slots, self.loaded = max([1, *(len(bank.sets) for bank in self.banks().values())]), True
        self.to(self.backbone.device)
        own = self.learned()
        empty = {name for name, count in counts.items() if not count and any(counts.values())}
        if wrong := (own.keys() ^ state.keys()) | empty:
            raise UsageError(f"method {self.name}: this state is not its own; they differ in {sorted(wrong)[:3]}")
        for name, tensor in own.items():
            tensor.copy_(state[name])


def _alone(name: str) -> str:
    return f"{name.rpartition('.')[0]}.0"
