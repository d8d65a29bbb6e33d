"""Small things that tests of two-stage methods share."""

import torch
from torch import nn

from methods.bank import Rows, stream
from methods.base import Method
from tasks.encode import collate
from tasks.example import Batch, Encoded, Example

CPU = torch.device("cpu")


def rows_of(*slots: int) -> Rows:
    rows = Rows()
    rows.see(slots, CPU)
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
        delta.add_slot(stream(slot))
    return away(delta)


def item(draw: torch.Generator, task: str = "toy", tokens: int = 9) -> Encoded:
    ids = torch.randint(2, 40, (tokens + 2,), generator=draw).tolist()
    return Encoded(Example("uid", task, "", ("",)), tuple(ids[:tokens]), (*ids[tokens:], 1), (), 2)


def batch_of(*slots: int, seed: int = 0) -> Batch:
    """Rows of unequal length with two answer tokens and the end token."""
    draw = torch.Generator().manual_seed(seed)
    return collate([item(draw, f"toy{slot}", 6 + place) for place, slot in enumerate(slots)], slots, 1)


def step(method: Method, batch: Batch, lr: float | None = None) -> None:
    """One AdamW step, as the Trainer would take it."""
    method.steps = [10] * method.slots
    optimizer = method.configure_optimizers()["optimizer"]
    if lr:
        for group in optimizer.param_groups:
            group["lr"] = lr
    method.zero_grad()
    method.loss(batch).sum().backward()
    optimizer.step()
    method.zero_grad()


def logits(method: Method, batch: Batch) -> torch.Tensor:
    """At all positions [b, s, v], with nothing shared between rows."""
    with torch.no_grad():
        hidden = method.eval().hidden(batch.input_ids, batch.attention_mask, batch.slots)
        return method.backbone.head(hidden)


def prompts(count: int, backbone, length: int = 4, seed: int = 5, size: float = 0.3) -> list[dict[str, torch.Tensor]]:
    """What `count` cells of `prompt` on the sources would have left."""
    draw = torch.Generator().manual_seed(seed)
    return [{"prompt.sets.0": size * torch.randn(length, backbone.width, generator=draw)} for _ in range(count)]
