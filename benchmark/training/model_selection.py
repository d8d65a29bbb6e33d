"""Model selection on dev: evaluation schedule, best weights per slot and early stopping."""

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
from methods.core.step_plan import StepOutput
from tasks.core.batching import MultiTaskDataModule

LOSS_READ_INTERVAL = 50  # steps between reads of the losses on a GPU, where a read synchronises with the device


class ModelSelection(L.Callback):
    """Lightning callback: logs losses, evaluates dev, keeps each slot's best weights, stops slots without improvement.

    The best weights stay in memory. With `has_shared_parameters` (sources in one mixture) all slots have the same best
    step and the same end, decided by their mean score.
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
        self.group = group
        self.budget = budget
        self.histories = histories
        self.has_shared_parameters = has_shared_parameters
        self.normalise = normalise
        self.evaluation_steps = [
            {ceil(history.num_steps * k / budget.evaluations) for k in range(1, budget.evaluations + 1)}
            for history in histories
        ]
        num_selections = 1 if has_shared_parameters else len(histories)
        self.best_scores: list[tuple[float, float]] = [(float("-inf"), 0.0)] * num_selections
        self.evaluations_without_gain = [0] * num_selections
        self.best_weights: list[dict[str, Tensor]] = [{} for _ in range(num_selections)]
        self.unread_outputs: list[tuple[int, StepOutput]] = []  # outputs of steps whose losses were not read yet

    def on_train_batch_end(
        self, trainer: L.Trainer, method: Method, outputs: StepOutput, batch: Any, batch_idx: int
    ) -> None:
        """Read the losses and evaluate dev if either is due; stop the trainer once all slots have ended."""
        step = trainer.global_step
        self.unread_outputs.append((step, outputs))
        due = [
            slot
            for slot, evaluation_steps in enumerate(self.evaluation_steps)
            if step in evaluation_steps and not self.histories[slot].stopped_step
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
        """Read the losses of the last steps into the histories. Raises FloatingPointError if a loss is not finite."""
        self.unread_outputs = distributed.all_gather_outputs(self.unread_outputs)
        if not self.unread_outputs:
            return
        losses = iter(torch.cat([outputs["losses"] for _, outputs in self.unread_outputs]).tolist())
        for step, outputs in self.unread_outputs:
            for name, value in outputs.get("watched", {}).items():
                for history in self.histories:
                    history.diagnostics.setdefault(name, []).append((step, float(value)))
            for slot, tokens, padded in zip(outputs["present"], outputs["tokens"], outputs["padded"], strict=True):
                history = self.histories[slot]
                loss = next(losses)
                history.loss_curve.append((step, loss))
                history.num_tokens += tokens
                history.num_padded_tokens += padded
                if not isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss} at step {step} of {history.num_steps} (slot {slot})")
        self.unread_outputs = []

    def evaluate_slots(self, method: Method, step: int, due_slots: list[int]) -> None:
        """Evaluate the slots that are due on dev; store weights that improved, stop slots that ran out of patience."""
        members = [self.group.member_tasks[slot] for slot in due_slots]
        dev_scores = distributed.broadcast_object(evaluate_on_dev(method, members, due_slots, self.normalise))
        for slot, (score, nll) in zip(due_slots, dev_scores, strict=True):
            self.histories[slot].dev_scores.append((step, score, nll))
        slot_groups = [due_slots] if self.has_shared_parameters else [[slot] for slot in range(len(self.histories))]
        for index, slots in enumerate(slot_groups):
            if not set(slots) <= set(due_slots):
                continue
            score, nll = (sum(self.histories[slot].dev_scores[-1][i] for slot in slots) / len(slots) for i in (1, 2))
            if (score, -nll) > self.best_scores[index]:
                self.best_scores[index] = (score, -nll)
                self.evaluations_without_gain[index] = 0
                self.store_best_weights(method, step, index, slots)
            else:
                self.evaluations_without_gain[index] += 1
            if (
                self.budget.patience
                and self.evaluations_without_gain[index] >= self.budget.patience
                and step < self.histories[slots[0]].num_steps
            ):
                for slot in slots:
                    self.histories[slot].stopped_step = step
                    self.group.ended_slots.add(slot)

    def store_best_weights(self, method: Method, step: int, selection_index: int, slots: list[int]) -> None:
        """Copy the weights of these slots and set their best step."""
        trainable = method.trainable_by_slot()
        if self.has_shared_parameters:
            parameters = {name: p for named in trainable.values() for name, p in named.items()}
        else:
            parameters = trainable[slots[0]]
        is_last_step = step >= self.histories[slots[0]].num_steps  # the weights do not change any more: no copy
        self.best_weights[selection_index] = (
            {} if is_last_step else {name: p.detach().clone() for name, p in parameters.items()}
        )
        for slot in slots:
            self.histories[slot].best_step = step

    @torch.no_grad()
    def restore_best_weights(self, method: Method) -> None:
        """Load the best weights into the method, and complete the histories."""
        self.record_losses()
        for weights in self.best_weights:
            for name, value in weights.items():
                method.get_parameter(name).copy_(value)
        for history in self.histories:
            history.best_step = history.best_step or history.num_steps
            history.num_gradients = self.group.gradients_per_step * (history.stopped_step or history.num_steps)
