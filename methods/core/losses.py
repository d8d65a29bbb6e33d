"""TODO."""

from collections.abc import Sequence

import torch
from lightning.fabric.utilities import move_data_to_device

from methods.base import Method
from tasks.encode import collate, pad_token
from tasks.example import Encoded

PROBE_BATCH_SIZE = 8  # `best` looks at this many training examples, so many rows at a time


@torch.no_grad()
def compute_mean_loss(method: Method, slot: int, examples: Sequence[Encoded]) -> float:
    """Of some examples under what this slot holds."""
    parts = [examples[i : i + PROBE_BATCH_SIZE] for i in range(0, len(examples), PROBE_BATCH_SIZE)]
    batches = [collate(part, (slot,) * len(part), pad_token(method.backbone.tokenizer)) for part in parts]
    losses = [method.loss(move_data_to_device(method.plan(batch), method.backbone.device)).item() for batch in batches]
    return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(examples)
