"""One training stage: a Lightning Trainer, and for each slot its own dev scores, best weights and early stop."""

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
    """Run a stage of a method on a group of tasks or cells. Afterwards each slot holds its best weights.

    Dev is scored as test will be: `normalise` as in `predict`.

    Where the device has no room for a step, the stage begins again with its steps in twice as many parts.
    Raises FloatingPointError, naming the step, when a loss is not finite.
    """
    if len(seeds) != len(group.member_tasks):
        raise UsageError(f"{len(seeds)} seeds for {len(group.member_tasks)} members of a group; give one for each")
    group.setup()
    start, rows = perf_counter(), sum(member.batch_size for member in group.member_tasks)
    before = None if stage == method.stages[0] else {name: t.clone() for name, t in method.trained_state_dict().items()}
    while True:
        try:
            histories = fit_stage(method, group, stage, budget, seeds, callbacks, normalise)
            break
        except torch.OutOfMemoryError:
            if method.num_micro_batches >= rows or distributed.get_num_processes() > 1:  # others would not begin again
                raise
        method.num_micro_batches *= 2  # outside the handler, which would keep what the failed step had allocated
        if before is not None:
            method.load(before)
    for history in histories:
        history.seconds, history.num_micro_batches = perf_counter() - start, method.num_micro_batches
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
    """The stage from its start, with the method's steps in as many parts as it says."""
    method.begin_stage(stage, seeds, [member.encode_split("train") for member in group.member_tasks])
    share = method.budget_fraction(stage)
    if not (method.trainable_by_slot() and share):
        return [History(0) for _ in group.member_tasks]
    group.requested_steps, group.ended_slots = compute_num_steps(group, budget, share), set()
    method.slot_steps, method.world_size, device = (
        list(group.num_steps_by_member),
        distributed.get_num_processes(),
        method.backbone.device,
    )
    histories, together = [History(steps) for steps in method.slot_steps], group.batch_mode != "packed"
    keeper = ModelSelection(group, budget, histories, has_shared_parameters=together, normalise=normalise)
    with suppress_lightning_logs(), preserve_keyboard_interrupt():
        trainer = L.Trainer(
            **distributed.build_trainer_options(method),
            max_steps=max(method.slot_steps),
            callbacks=[keeper, *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(method, datamodule=group)
        finally:
            method.to(device)  # Lightning leaves a fit's module on the CPU
            method.zero_grad()
            method.eval()
    keeper.restore_best_weights(method)
    return histories


def compute_num_steps(group: MultiTaskDataModule, budget: Budget, budget_fraction: float = 1.0) -> int | list[int]:
    """Steps of each packed member, or of the mixture: this share of the budget's.

    A step of the budget is one gradient of one batch; a step of episodes is as many as it takes. Where a method learns
    from fewer examples than it was offered, its steps stay those of all: as many gradients, on fewer examples.
    """
    sizes = [member.report["offered"]["train"] for member in group.member_tasks]
    if group.batch_mode == "packed":
        steps = [
            budget.compute_num_steps(size, member.batch_size)
            for size, member in zip(sizes, group.member_tasks, strict=True)
        ]
        return [ceil(budget_fraction * own) for own in steps]
    return ceil(budget_fraction * budget.compute_num_steps(sum(sizes), group.batch_size) / group.gradients_per_step)


@contextmanager
def preserve_keyboard_interrupt() -> Iterator[None]:
    """Ctrl-C as what it is: Lightning turns it into exit code 1 and then leaves the signal ignored."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
