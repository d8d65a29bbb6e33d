"""Record of a training: losses, dev scores, token counts and times of each slot."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean


@dataclass
class History:
    """Training history of one slot."""

    num_steps: int  # planned steps
    loss_curve: list[tuple[int, float]] = field(default_factory=list)  # (step, training loss)
    dev_scores: list[tuple[int, float, float]] = field(default_factory=list)  # (step, the task's metric, answer NLL)
    best_step: int = 0  # step whose weights were selected
    stopped_step: int = 0  # step of an early stop, 0 if there was none
    num_tokens: int = 0  # training tokens without padding
    num_padded_tokens: int = 0  # the same with padding
    num_gradients: int = 0  # gradients computed, each of one batch
    num_micro_batches: int = 1  # forward passes per step: more than 1 if a whole batch exceeded the memory
    # values that the method reports in its steps: name -> (step, value)
    diagnostics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0  # duration of the whole stage, including dev; the same for all slots of a pack
    dev_seconds: float = 0.0  # this slot's part of the time for dev evaluations

    @property
    def best_dev_score(self) -> float | None:
        """The task's metric on dev at the best step; None without a dev evaluation at that step."""
        return next((score for step, score, _ in self.dev_scores if step == self.best_step), None)


def combine_stages(stage_histories: Sequence[History]) -> History:
    """Combine one slot's consecutive stages: curves and scores of the last stage, summed costs of all stages."""
    cost_fields = ("num_tokens", "num_padded_tokens", "num_gradients", "seconds", "dev_seconds")
    costs = {name: sum(getattr(stage, name) for stage in stage_histories) for name in cost_fields}
    return replace(stage_histories[-1], **costs)


def combine_slots(slot_histories: Sequence[History]) -> History:
    """Combine slots that were trained in one mixture: mean losses and dev scores, summed token counts."""
    curve: dict[int, list[float]] = {}
    for slot in slot_histories:
        for step, loss in slot.loss_curve:
            curve.setdefault(step, []).append(loss)
    evaluations = zip(*(slot.dev_scores for slot in slot_histories), strict=True)
    return replace(
        slot_histories[0],
        loss_curve=[(step, fmean(losses)) for step, losses in sorted(curve.items())],
        dev_scores=[
            (scores[0][0], fmean(score for _, score, _ in scores), fmean(nll for *_, nll in scores))
            for scores in evaluations
        ],
        num_tokens=sum(slot.num_tokens for slot in slot_histories),
        num_padded_tokens=sum(slot.num_padded_tokens for slot in slot_histories),
    )
