"""One training stage: a Lightning Trainer, and for each slot its own dev scores, best weights and early stop."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil, isfinite
from statistics import fmean
from time import perf_counter
from typing import Any

import lightning as L
import torch
from torch import Tensor

from benchmark import ranks
from benchmark.budget import Budget
from benchmark.measure import evaluate
from methods.base import Method, Stage
from tasks.example import UsageError
from tasks.group import Group

CHECK = 50  # steps between looks at the losses where a look makes the device wait


@dataclass
class History:
    """How one slot's training went."""

    steps: int  # planned
    curve: list[tuple[int, float]] = field(default_factory=list)  # (step, training loss)
    dev: list[tuple[int, float, float]] = field(default_factory=list)  # (step, the task's metric, answer NLL)
    best: int = 0  # step whose weights were kept
    stopped: int = 0  # step of an early stop, 0 if there was none
    tokens: int = 0  # trained on, without padding
    padded: int = 0  # the same with padding
    gradients: int = 0  # taken, of a batch each
    parts: int = 1  # passes of a step: more where the device had no room for all of its rows at once
    watched: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # what the method reports of its steps
    seconds: float = 0.0  # of the whole stage, dev included; slots of a pack share it
    dev_seconds: float = 0.0

    @property
    def score(self) -> float:
        """The task's metric on dev at the best step."""
        return next((score for step, score, _ in self.dev if step == self.best), float("nan"))


def learn(
    method: Method,
    group: Group,
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
    if len(seeds) != len(group.members):
        raise UsageError(f"{len(seeds)} seeds for {len(group.members)} members of a group; give one for each")
    group.setup()
    start, rows = perf_counter(), sum(member.batch_size for member in group.members)
    before = None if stage == method.stages[0] else {name: t.clone() for name, t in method.learned().items()}
    while True:
        try:
            histories = trained(method, group, stage, budget, seeds, callbacks, normalise)
            break
        except torch.OutOfMemoryError:
            if method.parts >= rows or ranks.count() > 1:  # others would not begin again
                raise
        method.parts *= 2  # outside the handler, which would keep what the failed step had allocated
        if before is not None:
            method.load(before)
    for history in histories:
        history.seconds, history.parts = perf_counter() - start, method.parts
    return histories


def trained(
    method: Method,
    group: Group,
    stage: Stage,
    budget: Budget,
    seeds: Sequence[int],
    callbacks: Sequence[L.Callback],
    normalise: str,
) -> list[History]:
    """The stage from its start, with the method's steps in as many parts as it says."""
    method.enter(stage, seeds, [member.encoded("train") for member in group.members])
    share = method.share(stage)
    if not (method.owned() and share):
        return [History(0) for _ in group.members]
    group.asked, group.ended = planned(group, budget, share), set()
    method.steps, method.ranks, device = list(group.steps), ranks.count(), method.backbone.device
    histories, together = [History(steps) for steps in method.steps], group.batches != "packed"
    keeper = Keeper(group, budget, histories, together=together, normalise=normalise)
    with quiet(), interruptible():
        trainer = L.Trainer(
            **ranks.placed(method),
            max_steps=max(method.steps),
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
    keeper.finish(method)
    return histories


def joined(stages: Sequence[History]) -> History:
    """One slot's stages in a row: what the last one came to, at the cost of all."""
    sums = ("tokens", "padded", "gradients", "seconds", "dev_seconds")
    return replace(stages[-1], **{name: sum(getattr(stage, name) for stage in stages) for name in sums})


def mixed(slots: Sequence[History]) -> History:
    """Slots that were trained in one mixture as one: the mean of their losses and scores, the sum of their tokens."""
    curve: dict[int, list[float]] = {}
    for slot in slots:
        for step, loss in slot.curve:
            curve.setdefault(step, []).append(loss)
    every = zip(*(slot.dev for slot in slots), strict=True)
    return replace(
        slots[0],
        curve=[(step, fmean(losses)) for step, losses in sorted(curve.items())],
        dev=[(at[0][0], fmean(score for _, score, _ in at), fmean(nll for *_, nll in at)) for at in every],
        tokens=sum(slot.tokens for slot in slots),
        padded=sum(slot.padded for slot in slots),
    )


def planned(group: Group, budget: Budget, share: float = 1.0) -> int | list[int]:
    """Steps of each packed member, or of the mixture: this share of the budget's.

    A step of the budget is one gradient of one batch; a step of episodes is as many as it takes. Where a method learns
    from fewer examples than it was offered, its steps stay those of all: as many gradients, on fewer examples.
    """
    sizes = [member.report["offered"]["train"] for member in group.members]
    if group.batches == "packed":
        steps = [budget.steps(size, member.batch_size) for size, member in zip(sizes, group.members, strict=True)]
        return [ceil(share * own) for own in steps]
    return ceil(share * budget.steps(sum(sizes), group.batch_size) / group.gradients)


class Keeper(L.Callback):
    """Follows the losses, scores dev, keeps each slot's best learned tensors in memory, and stops who does not improve.

    `together`: slots that share parameters (sources in one mixture) have one best step and one end, by their mean.
    """

    def __init__(
        self, group: Group, budget: Budget, histories: list[History], *, together: bool, normalise: str = "sum"
    ) -> None:
        self.group, self.budget, self.histories, self.together = group, budget, histories, together
        self.normalise = normalise
        self.marks = [
            {ceil(h.steps * k / budget.evaluations) for k in range(1, budget.evaluations + 1)}
            if budget.evaluations
            else set()
            for h in histories
        ]
        count = 1 if together else len(histories)
        self.best: list[tuple[float, float]] = [(float("-inf"), 0.0)] * count
        self.waited = [0] * count
        self.kept: list[dict[str, Tensor]] = [{} for _ in range(count)]
        self.waiting: list[tuple[int, dict[str, Any]]] = []  # steps whose losses were not looked at yet

    def on_train_batch_end(self, trainer: L.Trainer, method: Method, outputs: dict, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        self.waiting.append((step, outputs))
        due = [slot for slot, marks in enumerate(self.marks) if step in marks and not self.histories[slot].stopped]
        if due or method.device.type == "cpu" or len(self.waiting) >= CHECK:
            self.look()
        if due:
            start = perf_counter()
            self.judge(method, step, due)
            for slot in due:
                self.histories[slot].dev_seconds += (perf_counter() - start) / len(due)
        if all(history.stopped or step >= history.steps for history in self.histories):
            trainer.should_stop = True

    def look(self) -> None:
        """Read the losses of the last steps into the curves."""
        self.waiting = ranks.gathered(self.waiting)
        values = torch.cat([outputs["losses"] for _, outputs in self.waiting]).tolist() if self.waiting else []
        values = iter(values)
        for step, outputs in self.waiting:
            for name, value in outputs.get("watched", {}).items():
                for history in self.histories:
                    history.watched.setdefault(name, []).append((step, float(value)))
            for slot, tokens, padded in zip(outputs["present"], outputs["tokens"], outputs["padded"], strict=True):
                history, loss = self.histories[slot], next(values)
                history.curve.append((step, loss))
                history.tokens, history.padded = history.tokens + tokens, history.padded + padded
                if not isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss} at step {step} of {history.steps} (slot {slot})")
        self.waiting = []

    def judge(self, method: Method, step: int, due: list[int]) -> None:
        """Score the slots that are due, and keep or stop."""
        members = [self.group.members[slot] for slot in due]
        found = ranks.agreed(evaluate(method, members, due, self.normalise))
        for slot, (score, nll) in zip(due, found, strict=True):
            self.histories[slot].dev.append((step, score, nll))
        for place, slots in enumerate([due] if self.together else [[slot] for slot in range(len(self.histories))]):
            if not set(slots) <= set(due):
                continue
            score, nll = (sum(self.histories[slot].dev[-1][i] for slot in slots) / len(slots) for i in (1, 2))
            if (score, -nll) > self.best[place]:
                self.best[place], self.waited[place] = (score, -nll), 0
                self.keep(method, step, place, slots)
            else:
                self.waited[place] += 1
            if (
                self.budget.patience
                and self.waited[place] >= self.budget.patience
                and step < self.histories[slots[0]].steps
            ):
                for slot in slots:
                    self.histories[slot].stopped = step
                    self.group.ended.add(slot)

    def keep(self, method: Method, step: int, place: int, slots: list[int]) -> None:
        owned = method.owned()
        names = {name: p for part in owned.values() for name, p in part.items()} if self.together else owned[slots[0]]
        last = step >= self.histories[slots[0]].steps  # then nothing moves them any more
        self.kept[place] = {} if last else {name: p.detach().clone() for name, p in names.items()}
        for slot in slots:
            self.histories[slot].best = step

    @torch.no_grad()
    def finish(self, method: Method) -> None:
        """Put the best weights in place."""
        self.look()
        for kept in self.kept:
            for name, value in kept.items():
                method.get_parameter(name).copy_(value)
        for history in self.histories:
            history.best = history.best or history.steps
            history.gradients = self.group.gradients * (history.stopped or history.steps)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices and workers; errors still come as exceptions."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def interruptible() -> Iterator[None]:
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
