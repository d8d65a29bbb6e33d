"""Training of one stage with a Lightning Trainer; every slot has its own dev scores, best weights and early stop."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from time import perf_counter

import lightning as L
import torch

from benchmark.config.budget import Budget
from benchmark.training import distributed
from benchmark.training.history import History
from benchmark.training.model_selection import ModelSelection
from methods.base import Method, Stage
from methods.core.lightning_logs import suppress_lightning_logs
from tasks.core.batching import MultiTaskDataModule
from tasks.core.types import UsageError


def train_stage(
    method: Method,
    group: MultiTaskDataModule,
    stage: Stage,
    budget: Budget,
    *,
    seeds: Sequence[int],
    callbacks: Sequence[L.Callback] = (),
    normalise: str = "sum",
) -> list[History]:
    """Train a stage of a method on a group of tasks or cells; afterwards each slot holds its best weights.

    `normalise` is the score normalisation on dev, as in `predict`. If a step exceeds the device's memory, the stage
    starts again with twice as many micro-batches per step. Raises FloatingPointError, with the step, for a loss that is
    not finite, and UsageError if `seeds` and the group's members differ in number.
    """
    if len(seeds) != len(group.member_tasks):
        raise UsageError(f"{len(seeds)} seeds for {len(group.member_tasks)} members of a group; give one for each")
    group.setup()
    start = perf_counter()
    max_micro_batches = sum(member.batch_size for member in group.member_tasks)
    initial_state = None
    if stage != method.stages[0]:
        initial_state = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    while True:
        try:
            histories = fit_stage(method, group, stage, budget, seeds, callbacks, normalise)
            break
        except torch.OutOfMemoryError:
            # with several processes the others would not start again
            if method.num_micro_batches >= max_micro_batches or distributed.get_num_processes() > 1:
                raise
        method.num_micro_batches *= 2  # outside the handler, whose traceback keeps the failed step's tensors alive
        if initial_state is not None:
            method.load(initial_state)
    for history in histories:
        history.seconds = perf_counter() - start
        history.num_micro_batches = method.num_micro_batches
    return histories


def fit_stage(
    method: Method,
    group: MultiTaskDataModule,
    stage: Stage,
    budget: Budget,
    seeds: Sequence[int],
    callbacks: Sequence[L.Callback],
    normalise: str,
) -> list[History]:
    """Train the stage once from its start, with the method's current number of micro-batches."""
    method.begin_stage(stage, seeds, [member.encode_split("train") for member in group.member_tasks])
    budget_fraction = method.budget_fraction(stage)
    if not (method.trainable_by_slot() and budget_fraction):
        return [History(0) for _ in group.member_tasks]
    group.requested_steps = compute_num_steps(group, budget, budget_fraction)
    group.ended_slots = set()
    method.slot_steps = list(group.num_steps_by_member)
    method.world_size = distributed.get_num_processes()
    device = method.backbone.device
    histories = [History(num_steps) for num_steps in method.slot_steps]
    has_shared_parameters = group.batch_mode != "packed"
    model_selection = ModelSelection(
        group, budget, histories, has_shared_parameters=has_shared_parameters, normalise=normalise
    )
    with suppress_lightning_logs(), preserve_keyboard_interrupt():
        trainer = L.Trainer(
            **distributed.build_trainer_options(method),
            max_steps=max(method.slot_steps),
            callbacks=[model_selection, *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(method, datamodule=group)
        finally:
            method.to(device)  # Lightning moves the module to the CPU after a fit
            method.zero_grad()
            method.eval()
    model_selection.restore_best_weights(method)
    return histories


def compute_num_steps(group: MultiTaskDataModule, budget: Budget, budget_fraction: float = 1.0) -> int | list[int]:
    """Number of steps of each packed member, or of the mixture, for this fraction of the budget.

    A step of the budget is one gradient of one batch; a step with episodes counts as `gradients_per_step` of these. The
    number is based on the examples offered, so a method that trains on fewer of them gets the same number of gradients.
    """
    sizes = [member.report["offered"]["train"] for member in group.member_tasks]
    if group.batch_mode == "packed":
        steps = [
            budget.compute_num_steps(size, member.batch_size)
            for size, member in zip(sizes, group.member_tasks, strict=True)
        ]
        return [ceil(budget_fraction * num_steps) for num_steps in steps]
    return ceil(budget_fraction * budget.compute_num_steps(sum(sizes), group.batch_size) / group.gradients_per_step)


@contextmanager
def preserve_keyboard_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C: Lightning raises SystemExit instead and then leaves the signal ignored."""
    previous_handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, previous_handler)
