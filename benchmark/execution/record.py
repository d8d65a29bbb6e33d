"""What a result file says of a cell, piece by piece. Imports no torch: a cell whose process died has a result too."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import PlannedCell
from benchmark.grid.planner import get_task_role
from benchmark.system.hashing import hash_prompt
from benchmark.system.redaction import get_backbone_display_name
from benchmark.system.resources import PhaseTimer, get_timestamp

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.evaluation.scoring import Prediction
    from benchmark.training.history import History
    from methods.base import Method
    from tasks.base import Task
    from tasks.core.types import Example

MAX_CURVE_POINTS = 200  # most points of a learning curve that are kept


def build_result_header(planned_cell: PlannedCell, profile: Profile, started_at: str, seconds: float) -> dict[str, Any]:
    """What every result says, done or failed."""
    facts, first = specs.get_method_spec(planned_cell.cell.method), specs.get_task_spec(planned_cell.training_tasks[0])
    return {
        "identity": planned_cell.identity,
        "key": planned_cell.cell.key,
        "cell": planned_cell.cell._asdict(),
        "grid": profile.grid_name,
        "suite": profile.suite.name,
        "times": {"started": started_at, "finished": get_timestamp(), "seconds": round(seconds, 3)},
        "parts": planned_cell.identity_inputs,
        "parents": list(planned_cell.dependencies),
        "method": {"what": facts.trained_part, "paper": facts.paper, "trains": facts.uses_gradient_descent},
        "task": {"role": get_task_role(profile, planned_cell.training_tasks[0])}
        | {key: getattr(first, key) for key in ("family", "form", "metric", "licence")},
        "backbone": {"name": get_backbone_display_name(profile.backbone.name), "revision": profile.backbone.revision},
        "error": None,
    }


def build_prediction_columns(task: "Task", predictions: "Sequence[Prediction]") -> dict[str, list]:
    """A row per test example: what was asked (as a hash), what was answered, its score, how likely each choice was.

    The mean of `score` is the cell's primary metric, where that is a mean over examples: accuracy and F1 of spans are.
    """
    items = task.encode_split("test")
    return {
        "uid": [item.example.uid for item in items],
        "group": [item.example.group_id for item in items],
        "asked": [hash_prompt(item.example.prompt, *item.example.answers) for item in items],
        "target": [item.example.answers[0] for item in items],
        "predicted": [prediction.text for prediction in predictions],
        "correct": [
            prediction.text in item.example.answers for item, prediction in zip(items, predictions, strict=True)
        ],
        "score": [
            score_example(prediction.text, item.example) for item, prediction in zip(items, predictions, strict=True)
        ],
        "scores": [list(prediction.scores) for prediction in predictions],
    }


def score_example(predicted: str, example: "Example") -> float:
    """Of one example, 0..1: right or wrong for a choice, F1 for a span."""
    from tasks.core.metrics import compute_overlap_f1

    if example.choices:
        return float(predicted.strip() in example.answers)
    return max(compute_overlap_f1(predicted.strip(), answer) for answer in example.answers)


def build_data_record(task: "Task") -> dict[str, Any]:
    """Exactly which examples a cell saw; `origin`: sample, local, hub or own files."""
    report = {key: task.report[key] for key in ("splits", "offered", "cut", "short")}
    report["origin"] = task.report["source"].partition(":")[0]  # where a folder lies is nobody's business
    return report | {"digest": {split: task.hash_split(split) for split in task.examples}}


def build_training_record(histories: "Sequence[History]") -> dict[str, Any]:
    """Steps, the chosen one, and curves thin enough to keep."""
    first = histories[0]
    return {
        "steps": first.num_steps,
        "gradients": first.num_gradients,
        "best": first.best_step,
        "stopped": first.stopped_step,
        "loss": downsample_curve(first.loss_curve),
        "watched": {name: downsample_curve(curve) for name, curve in first.diagnostics.items()},
        "dev": [[step, round(score, 5), round(nll, 5)] for step, score, nll in first.dev_scores],
    }


def downsample_curve(curve: "Sequence[tuple[int, float]]") -> list[list[float]]:
    every = max(1, -(-len(curve) // MAX_CURVE_POINTS))
    return [[step, round(value, 5)] for step, value in curve[every - 1 :: every]]


def build_cost_record(
    method: "Method",
    adapter_tensors: "dict[str, Tensor]",
    history: "History",
    timer: PhaseTimer,
    pack_size: int,
    num_slots: int = 1,
) -> dict[str, Any]:
    """Parameters, bytes and seconds. Cells of a pack share the seconds, so each reports its part."""
    seconds = {phase: round(spent / pack_size, 4) for phase, spent in timer.seconds_by_phase.items()}
    rest = timer.total_seconds / pack_size - sum(seconds.values())
    return {
        "trained_parameters": method.count_trained_parameters(num_slots),
        "adapter_bytes": sum(tensor.numel() * tensor.element_size() for tensor in adapter_tensors.values()),
        "seconds": seconds | {"rest": round(max(0.0, rest), 4)},
        "pack": pack_size,
        "parts": history.num_micro_batches,
        "tokens": history.num_tokens,
        "tokens_per_second": round(history.num_tokens / seconds["train"], 1) if history.num_tokens else None,
        "padded_share": round(1 - history.num_tokens / history.num_padded_tokens, 4)
        if history.num_padded_tokens
        else None,
    }
