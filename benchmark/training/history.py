"""TODO."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean


@dataclass
class History:
    """How one slot's training went."""

    num_steps: int  # planned
    loss_curve: list[tuple[int, float]] = field(default_factory=list)  # (step, training loss)
    dev_scores: list[tuple[int, float, float]] = field(default_factory=list)  # (step, the task's metric, answer NLL)
    best_step: int = 0  # step whose weights were kept
    stopped_step: int = 0  # step of an early stop, 0 if there was none
    num_tokens: int = 0  # trained on, without padding
    num_padded_tokens: int = 0  # the same with padding
    num_gradients: int = 0  # taken, of a batch each
    num_micro_batches: int = 1  # passes of a step: more where the device had no room for all of its rows at once
    diagnostics: dict[str, list[tuple[int, float]]] = field(
        default_factory=dict
    )  # what the method reports of its steps
    seconds: float = 0.0  # of the whole stage, dev included; slots of a pack share it
    dev_seconds: float = 0.0

    @property
    def best_dev_score(self) -> float:
        """The task's metric on dev at the best step."""
        return next((score for step, score, _ in self.dev_scores if step == self.best_step), float("nan"))


def combine_stages(stage_histories: Sequence[History]) -> History:
    """One slot's stages in a row: what the last one came to, at the cost of all."""
    sums = ("num_tokens", "num_padded_tokens", "num_gradients", "seconds", "dev_seconds")
    return replace(
        stage_histories[-1], **{name: sum(getattr(stage, name) for stage in stage_histories) for name in sums}
    )


def combine_slots(slot_histories: Sequence[History]) -> History:
    """Slots that were trained in one mixture as one: the mean of their losses and scores, the sum of their tokens."""
    curve: dict[int, list[float]] = {}
    for slot in slot_histories:
        for step, loss in slot.loss_curve:
            curve.setdefault(step, []).append(loss)
    every = zip(*(slot.dev_scores for slot in slot_histories), strict=True)
    return replace(
        slot_histories[0],
        loss_curve=[(step, fmean(losses)) for step, losses in sorted(curve.items())],
        dev_scores=[(at[0][0], fmean(score for _, score, _ in at), fmean(nll for *_, nll in at)) for at in every],
        num_tokens=sum(slot.num_tokens for slot in slot_histories),
        num_padded_tokens=sum(slot.num_padded_tokens for slot in slot_histories),
    )
