"""Parameters with one tensor per slot, and the assignment of a batch's rows to slots.

Every row of a batch belongs to a slot: a source task in a source stage, a cell in a packed target stage, 0 otherwise.
A method's formula is the same in all cases; a `SlotParameter` only holds a different number of tensors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SlotContext:
    """Slot of each row of the current forward pass. `row_index` [b] indexes `present_slots` [k]."""

    def __init__(self) -> None:
        self.row_slots: tuple[int, ...] = ()
        self.present_slots: tuple[int, ...] = ()
        self.row_index: Tensor | None = None  # None if all rows belong to one slot
        self.dropout_generator: torch.Generator | None = None  # source of dropout noise

    def activate(self, row_slots: tuple[int, ...], device: torch.device) -> None:
        """Set the slots of the rows of the next forward pass."""
        if row_slots == self.row_slots and (self.row_index is None or self.row_index.device == device):
            return
        self.row_slots = row_slots
        self.present_slots = tuple(sorted(set(row_slots)))
        indices = [self.present_slots.index(slot) for slot in row_slots]
        self.row_index = torch.tensor(indices, device=device) if len(self.present_slots) > 1 else None

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """Expand a tensor of the present slots [k, ...] to the rows [b, ...]; one for all slots stays [1, ...]."""
        return tensor if self.row_index is None or len(tensor) == 1 else tensor[self.row_index]


class SlotParameter(nn.Module):
    """A trainable tensor per slot, or one for all slots.

    Calling it returns the tensor of each row [b, ...], or simply [...] if all rows use the same one. The tensors are
    separate parameters, of which only the present ones are stacked: the gradient of an absent slot is None, so AdamW
    does not change it (a single stacked tensor would change by momentum and decay). `is_shared`: one tensor for all
    source tasks.
    """

    def __init__(self, slot_context: SlotContext, *, is_shared: bool = False) -> None:
        super().__init__()
        self.slot_context = slot_context
        self.is_shared = is_shared
        self.tensors = nn.ParameterList()

    def add_slot(self, tensor: Tensor) -> None:
        """Append a slot with this initial value; a shared parameter keeps its first tensor instead."""
        if not (self.is_shared and len(self.tensors)):
            self.tensors.append(nn.Parameter(tensor))

    def replace(self, tensors: Sequence[Tensor]) -> None:
        """Replace all slots by these tensors."""
        self.tensors = nn.ParameterList([nn.Parameter(tensor) for tensor in tensors])

    @property
    def is_trainable(self) -> bool:
        """False if any of its tensors is frozen."""
        return all(tensor.requires_grad for tensor in self.tensors)

    def for_slot(self, slot: int) -> Tensor:
        """Tensor of one slot."""
        return self.tensors[slot if len(self.tensors) > 1 else 0]

    def broadcast_mean(self, num_slots: int) -> None:
        """Replace the slots by `num_slots` copies of their mean, as at the start of a target stage."""
        mean = torch.stack(list(self.tensors)).detach().mean(0)
        self.replace([mean.clone() for _ in range(num_slots)])

    def stack_present_slots(self) -> Tensor:
        """Stacked tensors of the present slots [k, ...], or [1, ...] if there is one tensor for all slots."""
        # The product gives every gradient its own memory. The gradients of a stack are views of the incoming gradient,
        # which is the same tensor for two stacks that are added: clipping or accumulating one would change the other.
        return self._stack(self.slot_context.present_slots if len(self.tensors) > 1 else (0,)) * 1

    def forward(self) -> Tensor:
        """The tensor of each row [b, ...], or [...] if all rows use the same one."""
        if len(self.tensors) == 1:
            return self.tensors[0]
        if self.slot_context.row_index is None:
            return self.tensors[self.slot_context.present_slots[0]]
        # no product needed here: the gradient of the gathering has its own memory
        return self.slot_context.gather_rows(self._stack(self.slot_context.present_slots))

    def _stack(self, slots: Sequence[int]) -> Tensor:
        return torch.stack([self.tensors[slot] for slot in slots])
