"""TODO."""

from math import ceil, isfinite
from time import perf_counter
from typing import Any

import lightning as L
import torch
from torch import Tensor

from benchmark.config.budget import Budget
from benchmark.evaluation.evaluate import evaluate_on_dev
from benchmark.training import distributed
from benchmark.training.history import History
from methods.base import Method
from tasks.core.batching import MultiTaskDataModule

LOSS_READ_INTERVAL = 50  # steps between looks at the losses where a look makes the device wait


class ModelSelection(L.Callback):
    """Follows the losses, scores dev, keeps each slot's best learned tensors in memory, and stops who does not improve.

    `together`: slots that share parameters (sources in one mixture) have one best step and one end, by their mean.
    """

    def __init__(
        self,
        group: MultiTaskDataModule,
        budget: Budget,
        histories: list[History],
        *,
        has_shared_parameters: bool,
        normalise: str = "sum",
    ) -> None:
        self.group, self.budget, self.histories, self.has_shared_parameters = (
            group,
            budget,
            histories,
            has_shared_parameters,
        )
        self.normalise = normalise
        self.evaluation_steps = [
            {ceil(h.num_steps * k / budget.evaluations) for k in range(1, budget.evaluations + 1)}
            if budget.evaluations
            else set()
            for h in histories
        ]
        count = 1 if has_shared_parameters else len(histories)
        self.best_scores: list[tuple[float, float]] = [(float("-inf"), 0.0)] * count
        self.evaluations_without_gain = [0] * count
        self.best_weights: list[dict[str, Tensor]] = [{} for _ in range(count)]
        self.unread_outputs: list[tuple[int, dict[str, Any]]] = []  # steps whose losses were not looked at yet

    def on_train_batch_end(self, trainer: L.Trainer, method: Method, outputs: dict, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        self.unread_outputs.append((step, outputs))
        due = [
            slot
            for slot, marks in enumerate(self.evaluation_steps)
            if step in marks and not self.histories[slot].stopped_step
        ]
        if due or method.device.type == "cpu" or len(self.unread_outputs) >= LOSS_READ_INTERVAL:
            self.record_losses()
        if due:
            start = perf_counter()
            self.evaluate_slots(method, step, due)
            for slot in due:
                self.histories[slot].dev_seconds += (perf_counter() - start) / len(due)
        if all(history.stopped_step or step >= history.num_steps for history in self.histories):
            trainer.should_stop = True

    def record_losses(self) -> None:
        """Read the losses of the last steps into the curves."""
        self.unread_outputs = distributed.all_gather_outputs(self.unread_outputs)
        values = (
            torch.cat([outputs["losses"] for _, outputs in self.unread_outputs]).tolist() if self.unread_outputs else []
        )
        values = iter(values)
        for step, outputs in self.unread_outputs:
            for name, value in outputs.get("watched", {}).items():
                for history in self.histories:
                    history.diagnostics.setdefault(name, []).append((step, float(value)))
            for slot, tokens, padded in zip(outputs["present"], outputs["tokens"], outputs["padded"], strict=True):
                history, loss = self.histories[slot], next(values)
                history.loss_curve.append((step, loss))
                history.num_tokens += tokens
                history.num_padded_tokens += padded
                if not isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss} at step {step} of {history.num_steps} (slot {slot})")
        self.unread_outputs = []

    def evaluate_slots(self, method: Method, step: int, due_slots: list[int]) -> None:
        """Score the slots that are due, and keep or stop."""
        members = [self.group.member_tasks[slot] for slot in due_slots]
        found = distributed.broadcast_object(evaluate_on_dev(method, members, due_slots, self.normalise))
        for slot, (score, nll) in zip(due_slots, found, strict=True):
            self.histories[slot].dev_scores.append((step, score, nll))
        for place, slots in enumerate(
            [due_slots] if self.has_shared_parameters else [[slot] for slot in range(len(self.histories))]
        ):
            if not set(slots) <= set(due_slots):
                continue
            score, nll = (sum(self.histories[slot].dev_scores[-1][i] for slot in slots) / len(slots) for i in (1, 2))
            if (score, -nll) > self.best_scores[place]:
                self.best_scores[place], self.evaluations_without_gain[place] = (score, -nll), 0
                self.store_best_weights(method, step, place, slots)
            else:
                self.evaluations_without_gain[place] += 1
            if (
                self.budget.patience
                and self.evaluations_without_gain[place] >= self.budget.patience
                and step < self.histories[slots[0]].num_steps
            ):
                for slot in slots:
                    self.histories[slot].stopped_step = step
                    self.group.ended_slots.add(slot)

    def store_best_weights(self, method: Method, step: int, selection_index: int, slots: list[int]) -> None:
        owned = method.trainable_by_slot()
        names = (
            {name: p for part in owned.values() for name, p in part.items()}
            if self.has_shared_parameters
            else owned[slots[0]]
        )
        last = step >= self.histories[slots[0]].num_steps  # then nothing moves them any more
        self.best_weights[selection_index] = {} if last else {name: p.detach().clone() for name, p in names.items()}
        for slot in slots:
            self.histories[slot].best_step = step

    @torch.no_grad()
    def restore_best_weights(self, method: Method) -> None:
        """Put the best weights in place."""
        self.record_losses()
        for kept in self.best_weights:
            for name, value in kept.items():
                method.get_parameter(name).copy_(value)
        for history in self.histories:
            history.best_step = history.best_step or history.num_steps
            history.num_gradients = self.group.gradients_per_step * (history.stopped_step or history.num_steps)
