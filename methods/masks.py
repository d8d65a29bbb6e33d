"""Masks and positions of rows that have virtual tokens in front."""

import torch
from torch import Tensor


def given(attention_mask: Tensor, input_ids: Tensor) -> Tensor:
    """Which tokens [b, s] are given: those the mask [b, past + s] counts; all, where a mask says who sees whom."""
    if attention_mask.dim() == 2:
        return attention_mask[:, -input_ids.shape[1] :].bool()
    return torch.ones_like(input_ids, dtype=torch.bool)


def widened(mask: Tensor, positions: Tensor, ahead: int, virtual: int) -> tuple[Tensor, Tensor]:
    """Rows of who-sees-whom for `ahead` virtual tokens that are fed in front of the text: they see only each other."""
    if not ahead:
        return mask, positions
    b, _, seen = mask.shape
    rows = torch.ones(ahead, seen, dtype=torch.bool, device=mask.device).tril(virtual - ahead)
    front = torch.arange(virtual - ahead, virtual, device=mask.device).expand(b, -1)
    return torch.cat([rows.expand(b, -1, -1), mask], dim=1), torch.cat([front, positions], dim=1)
