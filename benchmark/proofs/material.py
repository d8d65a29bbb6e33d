"""What the proofs work on: random items, a method brought to the target, a training loop, one row on its own."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from benchmark.training.stage import quiet
from methods import load
from methods.backbone import Backbone
from methods.base import Method, Stage
from methods.config import Config
from methods.plan import Plan
from tasks.encode import collate
from tasks.example import Batch, Encoded, Episode, Example
from tasks.group import ready

SLOTS = 3
LEAD = 12


def items(count: int, stream: int, *, lead: int = LEAD, most: int = 24) -> list[Encoded]:
    """Random prompts of unequal length with a common lead, and one of three answers of unequal length."""
    draw = torch.Generator().manual_seed(stream)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 250, (size,), generator=draw).tolist())

    start, choices, found = ids(lead), (ids(1), ids(2), ids(3)), []
    for i in range(count):
        size, answer = int(torch.randint(3, most, (1,), generator=draw)), choices[i % 3]
        example = Example(f"toy:{stream}:{i}", "toy", "", ("abc"[i % 3],), ("a", "b", "c"))
        found.append(Encoded(example, start + ids(size), (*answer, 1), choices, lead))
    return found


def built(
    cls: type[Method],
    backbone: Backbone,
    slots: int = SLOTS,
    *,
    away: bool = True,
    config: Config | None = None,
    then: Callable[[Method], object] | None = None,
) -> Method:
    """A method that has gone through its stages up to the target; `away`: its parameters moved from where they start.

    Away from the start, because a wrong formula often agrees with a right one where B = 0. `then`: done in every stage.
    """
    slots = slots if cls.packable else 1
    states = parents(cls, backbone, config)
    method = cls(backbone, config)
    if states:
        method.inherit(states)
    for stage in cls.stages:
        enter(method, stage, slots)
        if away:
            move(method)
        if then:
            then(method)
    return method.eval()


def parents(cls: type[Method], backbone: Backbone, config: Config | None = None) -> list[dict[str, Tensor]]:
    """What the method's parents learned on two sources."""
    if cls.parent is None:
        return []
    kind = load(cls.parent.method)
    found = built(kind, backbone, 2, config=kind.configure(cls.parent.configure(config or cls.Config())))
    return [{name: tensor.clone() for name, tensor in found.adapter(slot).items()} for slot in range(2)]


def enter(method: Method, stage: Stage, slots: int) -> None:
    count = 2 if stage.on == "sources" else slots
    method.enter(stage, list(range(count)), [items(6, 100 + i) for i in range(count)])


@torch.no_grad()
def move(method: Method, size: float = 0.1) -> None:
    draw = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter += (size * torch.randn(parameter.shape, generator=draw)).to(parameter.device)


def batch(of: Sequence[Encoded], slots: Sequence[int], side: str = "right") -> Batch:
    return collate(of, slots, pad_id=1, side=side)


def slots_of(method: Method, rows: int) -> list[int]:
    """Rows of all slots, in no order."""
    return [(2 * i + 1) % method.slots for i in range(rows)]


def on(method: Method, given: Batch | Plan | Tensor) -> Any:
    """The same where the method's backbone is."""
    return move_data_to_device(given, method.backbone.device)


def run(method: Method, ids: Sequence[int], slot: int = 0, given: int | None = None) -> Tensor:
    """Last hidden states [s, d] of one row on its own, without padding or cache; the first `given` tokens are."""
    row = on(method, torch.tensor([ids]))
    source = on(method, (torch.arange(len(ids)) < (len(ids) if given is None else given))[None])
    with torch.no_grad():
        return method.hidden(row, torch.ones_like(row), (slot,), source=source)[0]


def fit(method: Method, batches: Sequence[Batch | Plan], until: float = 0.0) -> torch.optim.Optimizer:
    """What a Trainer does, without one; done early once the loss is below `until`."""
    made = method.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for i, one in enumerate(batches):
        optimizer.zero_grad()
        loss = method.training_step(on(method, one), i)["loss"]
        if loss < until:
            break
        loss.backward()
        method.on_before_optimizer_step(optimizer)
        method.configure_gradient_clipping(optimizer)
        optimizer.step()
        schedule.step()
    return optimizer


def train(method: Method, batches: Sequence[Batch | Episode], *callbacks: L.Callback) -> None:
    """What only a Trainer does: a step each, of a method that may optimise by itself."""
    with quiet():
        trainer = L.Trainer(
            accelerator=method.backbone.device.type,
            devices=1,
            max_epochs=1,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(method.train(), DataLoader(batches, batch_size=None, collate_fn=ready))
    method.to(method.backbone.device)  # Lightning leaves a fit's module on the CPU


def episode(*slots: int, support: int = 2, stream: int = 0) -> Episode:
    """Each slot with support batches (of this stream) and a query batch of a few rows."""

    def rows(slot: int, number: int) -> Batch:
        return batch(items(3, 200 + 10 * slot + number, most=8), [slot] * 3)

    return Episode(
        tuple(tuple(rows(slot, 1 + part + stream) for part in range(support)) for slot in slots),
        tuple(rows(slot, 0) for slot in slots),
    )


def weights(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in backbone.model.state_dict().items()}
