"""Builds the sections of a result file. Imports no torch: the parent process writes results of cells that died."""

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

MAX_CURVE_POINTS = 200  # maximum number of points of a stored learning curve


def build_result_header(planned_cell: PlannedCell, profile: Profile, started_at: str, seconds: float) -> dict[str, Any]:
    """Build the fields that every result has, done or failed; `seconds` is the time of this cell."""
    method_spec = specs.get_method_spec(planned_cell.cell.method)
    task_spec = specs.get_task_spec(planned_cell.training_tasks[0])
    return {
        "identity": planned_cell.identity,
        "key": planned_cell.cell.key,
        "cell": planned_cell.cell._asdict(),
        "grid": profile.grid_name,
        "suite": profile.suite.name,
        "times": {"started": started_at, "finished": get_timestamp(), "seconds": round(seconds, 3)},
        "parts": planned_cell.identity_inputs,
        "parents": list(planned_cell.dependencies),
        "method": {
            "what": method_spec.trained_part,
            "paper": method_spec.paper,
            "trains": method_spec.uses_gradient_descent,
        },
        "task": {"role": get_task_role(profile, planned_cell.training_tasks[0])}
        | {key: getattr(task_spec, key) for key in ("family", "form", "metric", "licence")},
        "backbone": {"name": get_backbone_display_name(profile.backbone.name), "revision": profile.backbone.revision},
        "error": None,
    }


def build_prediction_columns(task: "Task", predictions: "Sequence[Prediction]") -> dict[str, list]:
    """Build the columns of the prediction file, one row per test example; `asked` is a hash of prompt and answers.

    `scores` are the scores of the choices. The mean of `score` is the primary metric of the cell if that metric is a
    mean over examples, as accuracy and span F1 are.
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
    """Score one prediction in [0, 1]: exact match for a choice, best token-overlap F1 over the answers for a span."""
    from tasks.core.metrics import compute_overlap_f1

    if example.choices:
        return float(predicted.strip() in example.answers)
    return max(compute_overlap_f1(predicted.strip(), answer) for answer in example.answers)


def build_data_record(task: "Task") -> dict[str, Any]:
    """Describe the examples that a cell used: counts, hashes, and `origin` (sample, local, hub or own files)."""
    report = {key: task.report[key] for key in ("splits", "offered", "cut", "short")}
    report["origin"] = task.report["source"].partition(":")[0]  # without the path of a local folder, which is private
    return report | {"digest": {split: task.hash_split(split) for split in task.examples}}


def build_training_record(histories: "Sequence[History]") -> dict[str, Any]:
    """Describe the training of the first history: steps, the selected step, and downsampled curves."""
    history = histories[0]
    return {
        "steps": history.num_steps,
        "gradients": history.num_gradients,
        "best": history.best_step,
        "stopped": history.stopped_step,
        "loss": downsample_curve(history.loss_curve),
        "watched": {name: downsample_curve(curve) for name, curve in history.diagnostics.items()},
        "dev": [[step, round(score, 5), round(nll, 5)] for step, score, nll in history.dev_scores],
    }


def downsample_curve(curve: "Sequence[tuple[int, float]]") -> list[list[float]]:
    """Keep every n-th point of a curve, with the smallest n that leaves at most MAX_CURVE_POINTS points."""
    stride = max(1, -(-len(curve) // MAX_CURVE_POINTS))
    return [[step, round(value, 5)] for step, value in curve[stride - 1 :: stride]]


def build_cost_record(
    method: "Method",
    adapter_tensors: "dict[str, Tensor]",
    history: "History",
    timer: PhaseTimer,
    pack_size: int,
    num_slots: int = 1,
) -> dict[str, Any]:
    """Build the cost of a cell: parameters, bytes, tokens, and seconds per phase.

    The time of a pack is divided equally among its cells.
    """
    seconds = {phase: round(total / pack_size, 4) for phase, total in timer.seconds_by_phase.items()}
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
