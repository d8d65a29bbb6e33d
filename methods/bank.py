"""Learned tensors by slot.

Every row of a batch names its slot: a task while sources train together, a cell while targets train packed, 0 alone.
A method's formula is written once; "shared", "per task" and "packed" are only how many sets a bank holds.
"""

from collections.abc import Callable, Hashable, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn


def stream(*parts: object) -> torch.Generator:
    """A random stream named after what it decides, so that no draw depends on who else draws."""
    digest = sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


class Rows:
    """Which slot each row of the pass at hand belongs to. `index` [b] points into `present`."""

    def __init__(self) -> None:
        self.slots: tuple[int, ...] = ()
        self.present: tuple[int, ...] = ()
        self.index: Tensor | None = None  # None while all rows are of one slot
        self.noise: torch.Generator | None = None  # where dropout draws from

    def see(self, slots: tuple[int, ...], device: torch.device) -> None:
        if slots == self.slots and (self.index is None or self.index.device == device):
            return
        self.slots, self.present = slots, tuple(sorted(set(slots)))
        places = [self.present.index(slot) for slot in slots]
        self.index = torch.tensor(places, device=device) if len(self.present) > 1 else None

    def each(self, tensor: Tensor) -> Tensor:
        """Of the slots present [k, ...] -> of every row [b, ...]; what is one for all stays [1, ...]."""
        return tensor if self.index is None or len(tensor) == 1 else tensor[self.index]


class Bank(nn.Module):
    """A learned tensor per slot, or one for all: calling it gives each row its own, [b, ...], or simply [...].

    The sets are separate parameters and only those present are stacked: an absent slot's gradient is None, and AdamW
    leaves it alone (one stacked tensor would drift by momentum and decay). `shared`: one set for all source tasks.
    """

    def __init__(self, rows: Rows, *, shared: bool = False) -> None:
        super().__init__()
        self.rows, self.shared = rows, shared
        self.sets = nn.ParameterList()

    def add(self, tensor: Tensor) -> None:
        """One more slot, starting from this tensor; a shared bank keeps its first."""
        if not (self.shared and len(self.sets)):
            self.sets.append(nn.Parameter(tensor))

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """These sets instead of those at hand."""
        self.sets = nn.ParameterList([nn.Parameter(tensor) for tensor in tensors])

    @property
    def learns(self) -> bool:
        """False while its sets are frozen."""
        return all(tensor.requires_grad for tensor in self.sets)

    def of(self, slot: int) -> Tensor:
        """One slot's tensor."""
        return self.sets[slot if len(self.sets) > 1 else 0]

    def spread(self, slots: int) -> None:
        """From sources to targets: every slot starts from the mean of what was learned."""
        mean = torch.stack(list(self.sets)).detach().mean(0)
        self.fill([mean.clone() for _ in range(slots)])

    def present(self) -> Tensor:
        """Of each slot present, once: [k, ...], or [1, ...] where there is one set for all.

        Its gradient is memory of its own. A stack's would be views of what comes back, and where two banks are added
        that is one tensor for both: clipping or accumulating would then change either through the other.
        """
        return self._stacked(self.rows.present if len(self.sets) > 1 else (0,)) * 1

    def forward(self) -> Tensor:
        if len(self.sets) == 1:
            return self.sets[0]
        if self.rows.index is None:
            return self.sets[self.rows.present[0]]
        return self.rows.each(self._stacked(self.rows.present))  # gathered, its gradient is memory of its own

    def _stacked(self, slots: Sequence[int]) -> Tensor:
        return torch.stack([self.sets[slot] for slot in slots])


class Memory:
    """What was made from learned tensors, for as long as none of them changes or moves.

    Torch's fused optimisers change tensors unseen: clear `kept` before one may step.
    """

    def __init__(self) -> None:
        self.kept: dict[Hashable, tuple] = {}

    def __call__(self, key: Hashable, tensors: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        stamp = [(id(tensor), tensor._version, tensor.device) for tensor in tensors]
        if key not in self.kept or self.kept[key][0] != stamp:
            self.kept[key] = stamp, tensors, make()  # the tensors too, so that no other one takes their ids
        return self.kept[key][-1]
