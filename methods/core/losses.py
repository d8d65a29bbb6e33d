"""Mean loss of a slot on a set of examples, with which methods compare source states."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities import move_data_to_device

from tasks.core.encoding import collate, get_pad_token_id
from tasks.core.types import EncodedExample

if TYPE_CHECKING:
    from methods.base import Method

PROBE_BATCH_SIZE = 8  # rows per forward pass


@torch.no_grad()
def compute_mean_loss(method: "Method", slot: int, examples: Sequence[EncodedExample]) -> float:
    """Mean loss of the examples with the current parameters of a slot, without gradients."""
    chunks = [examples[i : i + PROBE_BATCH_SIZE] for i in range(0, len(examples), PROBE_BATCH_SIZE)]
    batches = [collate(chunk, (slot,) * len(chunk), get_pad_token_id(method.backbone.tokenizer)) for chunk in chunks]
    losses = [
        method.compute_batch_losses(move_data_to_device(method.plan_step(batch), method.backbone.device)).item()
        for batch in batches
    ]
    return sum(loss * len(chunk) for loss, chunk in zip(losses, chunks, strict=True)) / len(examples)
