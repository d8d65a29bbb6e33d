"""What a result file says of a cell, piece by piece. Imports no torch: a cell whose process died has a result too."""

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import catalogue
from benchmark.environment import Clock, now
from benchmark.grid import Planned, role
from benchmark.profile import Profile

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.learn import History
    from benchmark.score import Prediction
    from methods.base import Method
    from tasks.base import Task
    from tasks.example import Example

POINTS = 200  # most points of a learning curve that are kept


def header(planned: Planned, profile: Profile, started: str, seconds: float) -> dict[str, Any]:
    """What every result says, done or failed."""
    facts, first = catalogue.method(planned.cell.method), catalogue.task(planned.members[0])
    return {
        "identity": planned.identity,
        "key": planned.cell.key,
        "cell": planned.cell._asdict(),
        "grid": profile.title,
        "suite": profile.suite.name,
        "times": {"started": started, "finished": now(), "seconds": round(seconds, 3)},
        "parts": planned.parts,
        "parents": list(planned.parents),
        "method": {key: facts[key] for key in ("what", "paper", "trains")},
        "task": {"role": role(profile, planned.members[0])}
        | {key: first[key] for key in ("family", "form", "metric", "licence")},
        "backbone": {"name": backbone_title(profile.backbone.name), "revision": profile.backbone.revision},
        "error": None,
    }


def backbone_title(backbone: str) -> str:
    """A backbone's name; of a folder its last part, because where it lies is nobody's business."""
    folder = Path(backbone).expanduser()
    return folder.resolve().name if folder.is_dir() else backbone


def columns(task: "Task", found: "Sequence[Prediction]") -> dict[str, list]:
    """A row per test example: what was asked (as a hash), what was answered, its score, how likely each choice was.

    The mean of `score` is the cell's primary metric, where that is a mean over examples: accuracy and F1 of spans are.
    """
    items = task.encoded("test")
    return {
        "uid": [item.example.uid for item in items],
        "group": [item.example.group for item in items],
        "asked": [hashed(item.example.prompt, *item.example.answers) for item in items],
        "target": [item.example.answers[0] for item in items],
        "predicted": [prediction.text for prediction in found],
        "correct": [prediction.text in item.example.answers for item, prediction in zip(items, found, strict=True)],
        "score": [score(prediction.text, item.example) for item, prediction in zip(items, found, strict=True)],
        "scores": [list(prediction.scores) for prediction in found],
    }


def score(predicted: str, example: "Example") -> float:
    """Of one example, 0..1: right or wrong for a choice, F1 for a span."""
    from tasks.metrics import overlap

    if example.choices:
        return float(predicted.strip() in example.answers)
    return max(overlap(predicted.strip(), answer) for answer in example.answers)


def hashed(*texts: str) -> str:
    return sha1("\x1f".join(texts).encode()).hexdigest()[:16]


def data(task: "Task") -> dict[str, Any]:
    """Exactly which examples a cell saw; `origin`: sample, local, hub or own files."""
    report = {key: task.report[key] for key in ("splits", "offered", "cut", "short")}
    report["origin"] = task.report["source"].partition(":")[0]  # where a folder lies is nobody's business
    return report | {"digest": {split: task.digest(split) for split in task.examples}}


def training(histories: "Sequence[History]") -> dict[str, Any]:
    """Steps, the chosen one, and curves thin enough to keep."""
    first = histories[0]
    return {
        "steps": first.steps,
        "gradients": first.gradients,
        "best": first.best,
        "stopped": first.stopped,
        "loss": thin(first.curve),
        "watched": {name: thin(curve) for name, curve in first.watched.items()},
        "dev": [[step, round(score, 5), round(nll, 5)] for step, score, nll in first.dev],
    }


def thin(curve: "Sequence[tuple[int, float]]") -> list[list[float]]:
    every = max(1, -(-len(curve) // POINTS))
    return [[step, round(value, 5)] for step, value in curve[every - 1 :: every]]


def cost(
    method: "Method", adapter: "dict[str, Tensor]", history: "History", clock: Clock, pack: int, slots: int = 1
) -> dict[str, Any]:
    """Parameters, bytes and seconds. Cells of a pack share the seconds, so each reports its part."""
    seconds = {phase: round(spent / pack, 4) for phase, spent in clock.seconds.items()}
    rest = clock.total / pack - sum(seconds.values())
    return {
        "trained_parameters": method.trained_parameters(slots),
        "adapter_bytes": sum(tensor.numel() * tensor.element_size() for tensor in adapter.values()),
        "seconds": seconds | {"rest": round(max(0.0, rest), 4)},
        "pack": pack,
        "parts": history.parts,
        "tokens": history.tokens,
        "tokens_per_second": round(history.tokens / seconds["train"], 1) if history.tokens else None,
        "padded_share": round(1 - history.tokens / history.padded, 4) if history.padded else None,
    }
