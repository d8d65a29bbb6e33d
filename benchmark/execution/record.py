"""Builds the sections of a result file. Imports no torch: the parent process writes results of cells that died."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import PlannedCell
from benchmark.grid.planner import get_task_role
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import (
    BackboneRecord,
    CellDetails,
    CellTimes,
    Costs,
    CurvePoint,
    DataRecord,
    DevScore,
    MethodRecord,
    TaskRecord,
    TrainingRecord,
)
from benchmark.system.environment import Environment
from benchmark.system.hashing import hash_prompt
from benchmark.system.redaction import FailureDescription, get_backbone_display_name
from benchmark.system.resources import PeakMemory, PhaseTimer, get_timestamp

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.evaluation.scoring import Prediction
    from benchmark.training.history import History
    from methods.base import Method
    from tasks.base import Task
    from tasks.core.types import Example

MAX_CURVE_POINTS = 200  # maximum number of points of a stored learning curve


def build_result(
    planned_cell: PlannedCell,
    profile: Profile,
    *,
    error: FailureDescription | None = None,
    training: TrainingRecord | None = None,
    environment: Environment | None = None,
) -> CellResult:
    """Build the fields that every result has, done or failed. The cell starts and ends now, in 0 seconds."""
    now = get_timestamp()
    method_spec = specs.get_method_spec(planned_cell.cell.method)
    task_spec = specs.get_task_spec(planned_cell.training_tasks[0])
    role = get_task_role(profile, planned_cell.training_tasks[0])
    return CellResult(
        identity=planned_cell.identity,
        cell=planned_cell.cell,
        grid=profile.grid_name,
        suite=profile.suite.name,
        times=CellTimes(now, now, 0.0),
        dependencies=planned_cell.dependencies,
        method=MethodRecord(method_spec.trained_part, method_spec.paper, method_spec.uses_gradient_descent),
        task=TaskRecord(role, task_spec.family, task_spec.form, task_spec.metric, task_spec.licence),
        backbone=BackboneRecord(get_backbone_display_name(profile.backbone.name), profile.backbone.revision),
        error=error,
        stored_details=CellDetails(planned_cell.inputs, training, environment),
    )


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


def build_data_record(task: "Task", leaked: Mapping[str, int] | None = None) -> DataRecord:
    """Describe the examples that a cell used; `leaked` as in `DataRecord`."""
    return DataRecord(
        splits=task.report["splits"],
        offered=task.report["offered"],
        truncated=task.report["cut"],
        short=task.report["short"],
        origin=task.report["source"].partition(":")[0],  # without the path of a local folder, which is private
        digests={split: task.hash_split(split) for split in task.examples},
        leaked=leaked or {},
    )


def build_training_record(history: "History") -> TrainingRecord:
    """Describe a training: steps, the selected step, and downsampled curves."""
    return TrainingRecord(
        num_steps=history.num_steps,
        num_gradients=history.num_gradients,
        best_step=history.best_step,
        stopped_step=history.stopped_step,
        loss=downsample_curve(history.loss_curve),
        dev=tuple(DevScore(step, round(score, 5), round(nll, 5)) for step, score, nll in history.dev_scores),
        diagnostics={name: downsample_curve(curve) for name, curve in history.diagnostics.items()},
    )


def downsample_curve(curve: "Sequence[tuple[int, float]]") -> tuple[CurvePoint, ...]:
    """Keep every n-th point of a curve, with the smallest n that leaves at most MAX_CURVE_POINTS points."""
    stride = max(1, -(-len(curve) // MAX_CURVE_POINTS))
    return tuple(CurvePoint(step, round(value, 5)) for step, value in curve[stride - 1 :: stride])


def build_costs(
    method: "Method",
    adapter_tensors: "dict[str, Tensor]",
    history: "History",
    timer: PhaseTimer,
    peak_memory: PeakMemory,
    *,
    pack_size: int = 1,
    num_slots: int = 1,
    num_devices: int = 1,
) -> Costs:
    """Build the costs of a cell from those of its pack; `num_slots` counts the slots that the cell itself trains."""
    seconds = {phase: round(total / pack_size, 4) for phase, total in timer.seconds_by_phase.items()}
    rest = timer.total_seconds / pack_size - sum(seconds.values())
    padded_share = None
    if history.num_padded_tokens:
        padded_share = round(1 - history.num_tokens / history.num_padded_tokens, 4)
    return Costs(
        trained_parameters=method.count_trained_parameters(num_slots),
        adapter_bytes=sum(tensor.numel() * tensor.element_size() for tensor in adapter_tensors.values()),
        seconds_by_phase=seconds | {"rest": round(max(0.0, rest), 4)},
        peak_bytes=peak_memory.num_bytes,
        peak_measured_on=peak_memory.measured_on,
        pack_size=pack_size,
        num_micro_batches=history.num_micro_batches,
        num_tokens=history.num_tokens,
        tokens_per_second=round(history.num_tokens / seconds["train"], 1) if history.num_tokens else None,
        padded_share=padded_share,
        num_devices=num_devices,
    )
