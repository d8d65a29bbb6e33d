"""Learned tensors by slot.

Every row of a batch names its slot: a task while sources train together, a cell while targets train packed, 0 alone.
A method's formula is written once; "shared", "per task" and "packed" are only how many sets a bank holds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SlotContext:
    """Which slot each row of the pass at hand belongs to. `index` [b] points into `present`."""

    def __init__(self) -> None:
        self.row_slots: tuple[int, ...] = ()
        self.present_slots: tuple[int, ...] = ()
        self.row_index: Tensor | None = None  # None while all rows are of one slot
        self.dropout_generator: torch.Generator | None = None  # where dropout draws from

    def activate(self, row_slots: tuple[int, ...], device: torch.device) -> None:
        if row_slots == self.row_slots and (self.row_index is None or self.row_index.device == device):
            return
        self.row_slots, self.present_slots = row_slots, tuple(sorted(set(row_slots)))
        places = [self.present_slots.index(slot) for slot in row_slots]
        self.row_index = torch.tensor(places, device=device) if len(self.present_slots) > 1 else None

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """Of the slots present [k, ...] -> of every row [b, ...]; what is one for all stays [1, ...]."""
        return tensor if self.row_index is None or len(tensor) == 1 else tensor[self.row_index]


class SlotParameter(nn.Module):
    """A learned tensor per slot, or one for all: calling it gives each row its own, [b, ...], or simply [...].

    The sets are separate parameters and only those present are stacked: an absent slot's gradient is None, and AdamW
    leaves it alone (one stacked tensor would drift by momentum and decay). `shared`: one set for all source tasks.
    """

    def __init__(self, slot_context: SlotContext, *, is_shared: bool = False) -> None:
        super().__init__()
        self.slot_context, self.is_shared = slot_context, is_shared
        self.tensors = nn.ParameterList()

    def add_slot(self, tensor: Tensor) -> None:
        """One more slot, starting from this tensor; a shared bank keeps its first."""
        if not (self.is_shared and len(self.tensors)):
            self.tensors.append(nn.Parameter(tensor))

    def replace(self, tensors: Sequence[Tensor]) -> None:
        """These sets instead of those at hand."""
        self.tensors = nn.ParameterList([nn.Parameter(tensor) for tensor in tensors])

    @property
    def is_trainable(self) -> bool:
        """False while its sets are frozen."""
        return all(tensor.requires_grad for tensor in self.tensors)

    def for_slot(self, slot: int) -> Tensor:
        """One slot's tensor."""
        return self.tensors[slot if len(self.tensors) > 1 else 0]

    def broadcast_mean(self, num_slots: int) -> None:
        """From sources to targets: every slot starts from the mean of what was learned."""
        mean = torch.stack(list(self.tensors)).detach().mean(0)
        self.replace([mean.clone() for _ in range(num_slots)])

    def stack_present_slots(self) -> Tensor:
        """Of each slot present, once: [k, ...], or [1, ...] where there is one set for all.

        Its gradient is memory of its own. A stack's would be views of what comes back, and where two banks are added
        that is one tensor for both: clipping or accumulating would then change either through the other.
        """
        return self._stack(self.slot_context.present_slots if len(self.tensors) > 1 else (0,)) * 1

    def forward(self) -> Tensor:
        if len(self.tensors) == 1:
            return self.tensors[0]
        if self.slot_context.row_index is None:
            return self.tensors[self.slot_context.present_slots[0]]
        return self.slot_context.gather_rows(
            self._stack(self.slot_context.present_slots)
        )  # gathered, its gradient is memory of its own

    def _stack(self, slots: Sequence[int]) -> Tensor:
        return torch.stack([self.tensors[slot] for slot in slots])
