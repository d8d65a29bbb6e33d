"""Masks and positions of rows that have virtual tokens in front."""

import torch
from torch import Tensor


def build_prompt_mask(attention_mask: Tensor, input_ids: Tensor) -> Tensor:
    """Which tokens [b, s] are given: those the mask [b, past + s] counts; all, where a mask says who sees whom."""
    if attention_mask.dim() == 2:
        return attention_mask[:, -input_ids.shape[1] :].bool()
    return torch.ones_like(input_ids, dtype=torch.bool)


def extend_attention_pattern(
    attention_pattern: Tensor, position_ids: Tensor, num_prepended: int, num_virtual_tokens: int
) -> tuple[Tensor, Tensor]:
    """Rows of who-sees-whom for `ahead` virtual tokens that are fed in front of the text: they see only each other."""
    if not num_prepended:
        return attention_pattern, position_ids
    b, _, seen = attention_pattern.shape
    rows = torch.ones(num_prepended, seen, dtype=torch.bool, device=attention_pattern.device).tril(
        num_virtual_tokens - num_prepended
    )
    front = torch.arange(
        num_virtual_tokens - num_prepended, num_virtual_tokens, device=attention_pattern.device
    ).expand(b, -1)
    return torch.cat([rows.expand(b, -1, -1), attention_pattern], dim=1), torch.cat([front, position_ids], dim=1)
