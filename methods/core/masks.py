"""Masks and position ids of rows with prepended virtual tokens."""

import torch
from torch import Tensor


def build_prompt_mask(attention_mask: Tensor, input_ids: Tensor) -> Tensor:
    """Mask of the prompt's tokens, bool [b, s]: the last s columns of a padding mask [b, past + s].

    For an attention pattern [b, s, past + s] all tokens count as prompt tokens.
    """
    if attention_mask.dim() == 2:
        return attention_mask[:, -input_ids.shape[1] :].bool()
    return torch.ones_like(input_ids, dtype=torch.bool)


def extend_attention_pattern(
    attention_pattern: Tensor, position_ids: Tensor, num_prepended: int, num_virtual_tokens: int
) -> tuple[Tensor, Tensor]:
    """Extend an attention pattern by `num_prepended` virtual tokens in front of the text.

    `attention_pattern` bool [b, s, past + s] already has columns for all `num_virtual_tokens`; the prepended tokens are
    the last ones of these and attend causally to virtual tokens only. `position_ids` [b, s]. Returns both with
    `num_prepended` additional rows and positions in front.
    """
    if not num_prepended:
        return attention_pattern, position_ids
    b, _, num_columns = attention_pattern.shape
    rows = torch.ones(num_prepended, num_columns, dtype=torch.bool, device=attention_pattern.device).tril(
        num_virtual_tokens - num_prepended
    )
    positions = torch.arange(
        num_virtual_tokens - num_prepended, num_virtual_tokens, device=attention_pattern.device
    ).expand(b, -1)
    return torch.cat([rows.expand(b, -1, -1), attention_pattern], dim=1), torch.cat([positions, position_ids], dim=1)
