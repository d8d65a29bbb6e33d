"""What a pack's cells score: on dev while they train, on test at their end."""

from collections.abc import Sequence
from math import isnan

from benchmark.evaluation.scoring import Prediction, compute_log_likelihoods, predict
from methods.base import Method
from tasks.base import Task


def evaluate_on_dev(
    method: Method, tasks: Sequence[Task], slots: Sequence[int], normalise: str = "sum"
) -> list[tuple[float, float]]:
    """(the task's metric, mean negative log-likelihood of the answers) on dev, for each slot; they share passes."""
    rows = [(task, slot, item) for task, slot in zip(tasks, slots, strict=True) for item in task.encode_split("dev")]
    items, of, limits = [row[2] for row in rows], [row[1] for row in rows], [row[0].answer_tokens for row in rows]
    found = predict(method, items, of, max_new_tokens=limits, normalise=normalise)
    free = [i for i, (task, *_) in enumerate(rows) if task.form != "choice"]
    answers = [items[i]._replace(choice_ids=(items[i].answer_ids,)) for i in free]
    gold = dict(
        zip(free, (row[0] for row in compute_log_likelihoods(method, answers, [of[i] for i in free])), strict=True)
    )
    for i, (item, row) in enumerate(zip(items, found, strict=True)):
        if i not in gold:
            right = item.example.choices.index(item.example.answers[0])
            gold[i] = row.scores[right] * (len(item.choice_ids[right]) if normalise == "mean" else 1)
    said = []
    for task, slot in zip(tasks, slots, strict=True):
        own = [i for i, at in enumerate(of) if at == slot]
        score = task.score_predictions({items[i].example.uid: found[i].text for i in own}, "dev")[task.metric]
        said.append((score, -sum(gold[i] for i in own) / len(own)))
    return said


def compute_test_metrics(task: Task, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Metrics of predictions on test."""
    items = task.encode_split("test")
    return task.score_predictions({item.example.uid: row.text for item, row in zip(items, predictions, strict=True)})


def predict_test(method: Method, tasks: Sequence[Task], normalise: str) -> list[list[Prediction]]:
    """Predictions on the test set of each member, whose slot is its place."""
    items = [(slot, item) for slot, task in enumerate(tasks) for item in task.encode_split("test")]
    slots, most = [slot for slot, _ in items], [tasks[slot].answer_tokens for slot, _ in items]
    found = predict(method, [item for _, item in items], slots, max_new_tokens=most, normalise=normalise)
    if lost := sum(any(map(isnan, row.scores)) for row in found):  # the first choice would be taken, for a score
        raise FloatingPointError(f"likelihoods of {lost} of {len(found)} test examples are not numbers")
    return [[p for own, p in zip(slots, found, strict=True) if own == slot] for slot in range(len(tasks))]
