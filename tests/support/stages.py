"""Small things that tests of two-stage methods share."""

import torch
from torch import nn

from methods.base import Method
from methods.core.seeding import create_generator
from methods.core.slot_parameters import SlotContext
from tasks.core.encoding import collate
from tasks.core.types import Batch, EncodedExample, Example

CPU = torch.device("cpu")


def rows_of(*slots: int) -> SlotContext:
    rows = SlotContext()
    rows.activate(slots, CPU)
    return rows


def away(module: nn.Module) -> nn.Module:
    """Every parameter away from its start, where a wrong formula would pass."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=draw)
    return module


def started(delta: nn.Module, slots: int = 3) -> nn.Module:
    for slot in range(slots):
        delta.add_slot(create_generator(slot))
    return away(delta)


def item(draw: torch.Generator, task: str = "toy", tokens: int = 9) -> EncodedExample:
    ids = torch.randint(2, 40, (tokens + 2,), generator=draw).tolist()
    return EncodedExample(Example("uid", task, "", ("",)), tuple(ids[:tokens]), (*ids[tokens:], 1), (), 2)


def batch_of(*slots: int, seed: int = 0) -> Batch:
    """Rows of unequal length with two answer tokens and the end token."""
    draw = torch.Generator().manual_seed(seed)
    return collate([item(draw, f"toy{slot}", 6 + place) for place, slot in enumerate(slots)], slots, 1)


def step(method: Method, batch: Batch, lr: float | None = None) -> None:
    """One AdamW step, as the Trainer would take it."""
    method.slot_steps = [10] * method.num_slots
    optimizer = method.configure_optimizers()["optimizer"]
    if lr:
        for group in optimizer.param_groups:
            group["lr"] = lr
    method.zero_grad()
    method.compute_batch_losses(batch).sum().backward()
    optimizer.step()
    method.zero_grad()


def logits(method: Method, batch: Batch) -> torch.Tensor:
    """At all positions [b, s, v], with nothing shared between rows."""
    with torch.no_grad():
        hidden = method.eval().compute_hidden_states(batch.input_ids, batch.attention_mask, batch.slots)
        return method.backbone.compute_logits(hidden)


def prompts(count: int, backbone, length: int = 4, seed: int = 5, size: float = 0.3) -> list[dict[str, torch.Tensor]]:
    """What `count` cells of `prompt` on the sources would have left."""
    draw = torch.Generator().manual_seed(seed)
    return [
        {"prompt.tensors.0": size * torch.randn(length, backbone.hidden_size, generator=draw)} for _ in range(count)
    ]
