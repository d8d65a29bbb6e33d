"""Evaluation of a pack's cells: on dev during training, on test afterwards."""

from collections.abc import Sequence
from math import isnan

from benchmark.evaluation.scoring import Prediction, compute_log_likelihoods, predict
from methods.base import Method
from tasks.base import Task
from tasks.core.types import EncodedExample


def evaluate_on_dev(
    method: Method, tasks: Sequence[Task], slots: Sequence[int], normalise: str = "sum"
) -> list[tuple[float, float]]:
    """Metric and mean negative log-likelihood of the gold answers on dev, for each task; slots share forward passes."""
    items: list[EncodedExample] = []
    item_slots = []
    max_new_tokens = []
    span_indices = []
    for task, slot in zip(tasks, slots, strict=True):
        for item in task.encode_split("dev"):
            if task.form != "choice":
                span_indices.append(len(items))
            items.append(item)
            item_slots.append(slot)
            max_new_tokens.append(task.answer_tokens)
    predictions = predict(method, items, item_slots, max_new_tokens=max_new_tokens, normalise=normalise)
    span_items = [items[i]._replace(choice_ids=(items[i].answer_ids,)) for i in span_indices]
    span_scores = compute_log_likelihoods(method, span_items, [item_slots[i] for i in span_indices])
    gold_scores = {i: scores[0] for i, scores in zip(span_indices, span_scores, strict=True)}  # log-likelihoods
    for i, (item, prediction) in enumerate(zip(items, predictions, strict=True)):
        if i not in gold_scores:
            gold = item.example.choices.index(item.example.answers[0])
            gold_scores[i] = prediction.scores[gold] * (len(item.choice_ids[gold]) if normalise == "mean" else 1)
    results = []
    for task, slot in zip(tasks, slots, strict=True):
        indices = [i for i, item_slot in enumerate(item_slots) if item_slot == slot]
        texts = {items[i].example.uid: predictions[i].text for i in indices}
        score = task.score_predictions(texts, "dev")[task.metric]
        results.append((score, -sum(gold_scores[i] for i in indices) / len(indices)))
    return results


def compute_test_metrics(task: Task, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Metrics by name of the predictions on the test set."""
    items = task.encode_split("test")
    texts = {item.example.uid: prediction.text for item, prediction in zip(items, predictions, strict=True)}
    return task.score_predictions(texts)


def predict_test(method: Method, tasks: Sequence[Task], normalise: str) -> list[list[Prediction]]:
    """Predictions on the test set of each task, whose slot is its index.

    Raises FloatingPointError for NaN likelihoods, with which the first choice would be predicted silently.
    """
    splits = [task.encode_split("test") for task in tasks]
    items = [item for split in splits for item in split]
    slots = [slot for slot, split in enumerate(splits) for _ in split]
    max_new_tokens = [tasks[slot].answer_tokens for slot in slots]
    predictions = predict(method, items, slots, max_new_tokens=max_new_tokens, normalise=normalise)
    if num_nan := sum(any(map(isnan, prediction.scores)) for prediction in predictions):
        raise FloatingPointError(f"likelihoods of {num_nan} of {len(predictions)} test examples are NaN")
    return [
        [prediction for item_slot, prediction in zip(slots, predictions, strict=True) if item_slot == slot]
        for slot in range(len(tasks))
    ]
