"""TODO."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities import move_data_to_device

from tasks.core.encoding import collate, get_pad_token_id
from tasks.core.types import EncodedExample

if TYPE_CHECKING:
    from methods.base import Method

PROBE_BATCH_SIZE = 8  # `best` looks at this many training examples, so many rows at a time


@torch.no_grad()
def compute_mean_loss(method: "Method", slot: int, examples: Sequence[EncodedExample]) -> float:
    """Of some examples under what this slot holds."""
    parts = [examples[i : i + PROBE_BATCH_SIZE] for i in range(0, len(examples), PROBE_BATCH_SIZE)]
    batches = [collate(part, (slot,) * len(part), get_pad_token_id(method.backbone.tokenizer)) for part in parts]
    losses = [
        method.compute_batch_losses(move_data_to_device(method.plan_step(batch), method.backbone.device)).item()
        for batch in batches
    ]
    return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(examples)
