"""Fixtures of the checks: batches, episodes, training loops and hidden states of single rows."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from methods.base import Method
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples
from methods.core.lightning_logs import suppress_lightning_logs
from methods.core.step_plan import StepPlan
from tasks.core.batching import return_batch_unchanged
from tasks.core.encoding import collate
from tasks.core.types import Batch, EncodedExample, Episode


def make_batch(examples: Sequence[EncodedExample], slots: Sequence[int], padding_side: str = "right") -> Batch:
    """Collate examples, padded with token 1."""
    return collate(examples, slots, pad_id=1, padding_side=padding_side)


def assign_slots(method: Method, num_rows: int) -> list[int]:
    """Slots of `num_rows` rows, covering all slots out of order."""
    return [(2 * i + 1) % method.num_slots for i in range(num_rows)]


def move_to_backbone(method: Method, value: Batch | StepPlan | Tensor) -> Any:
    """Move tensors to the device of the method's backbone."""
    return move_data_to_device(value, method.backbone.device)


def compute_row_states(
    method: Method, input_ids: Sequence[int], slot: int = 0, num_prompt_tokens: int | None = None
) -> Tensor:
    """Last hidden states [s, d] of one row on its own, without padding or cache.

    The first `num_prompt_tokens` tokens are the prompt; None: all.
    """
    row = move_to_backbone(method, torch.tensor([input_ids]))
    source = move_to_backbone(
        method,
        (torch.arange(len(input_ids)) < (len(input_ids) if num_prompt_tokens is None else num_prompt_tokens))[None],
    )
    with torch.no_grad():
        return method.compute_hidden_states(row, torch.ones_like(row), (slot,), prompt_mask=source)[0]


def run_training_steps(
    method: Method, batches: Sequence[Batch | StepPlan], target_loss: float = 0.0
) -> torch.optim.Optimizer:
    """Train without a Trainer; stop once the loss is below `target_loss`."""
    optimizers = method.configure_optimizers()
    optimizer = optimizers["optimizer"]
    schedule = optimizers["lr_scheduler"]["scheduler"]
    for i, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = method.training_step(move_to_backbone(method, batch), i)["loss"]
        if loss < target_loss:
            break
        loss.backward()
        method.on_before_optimizer_step(optimizer)
        method.configure_gradient_clipping(optimizer)
        optimizer.step()
        schedule.step()
    return optimizer


def run_trainer(method: Method, batches: Sequence[Batch | Episode], *callbacks: L.Callback) -> None:
    """Take one step per batch with a Lightning Trainer, as manual optimisation requires."""
    with suppress_lightning_logs():
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
        trainer.fit(method.train(), DataLoader(batches, batch_size=None, collate_fn=return_batch_unchanged))
    method.to(method.backbone.device)  # Lightning leaves a fit's module on the CPU


def make_episode(*slots: int, num_support_batches: int = 2, seed: int = 0) -> Episode:
    """Episode with support batches (drawn with `seed`) and a query batch of three rows for each slot."""

    def rows(slot: int, number: int) -> Batch:
        return make_batch(generate_examples(3, 200 + 10 * slot + number, max_text_length=8), [slot] * 3)

    return Episode(
        tuple(tuple(rows(slot, 1 + part + seed) for part in range(num_support_batches)) for slot in slots),
        tuple(rows(slot, 0) for slot in slots),
    )


def copy_backbone_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Copy of the state dict of the backbone's model."""
    return {name: tensor.detach().clone() for name, tensor in backbone.model.state_dict().items()}
