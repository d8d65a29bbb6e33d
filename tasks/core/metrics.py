"""Metrics of predicted texts in 0..1, based on torchmetrics. They use no model, so saved predictions can be rescored.

Spans follow the CMRC 2018 evaluation (ymcui/cmrc2018, squad-style-data/cmrc2018_evaluate.py): punctuation is removed,
and texts are segmented into Chinese characters and other words. F1 is computed from the longest common *contiguous*
run of segments; the best value over the references counts. The original segments words by nltk's word_tokenize. Here
SEGMENT_PATTERN does it without nltk data, which differs only inside Latin text.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_stat_scores

from tasks.core.types import Example

# List of the CMRC 2018 evaluation; its entry "……" has two characters and never matches one.
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
SEGMENT_PATTERN = re.compile(r"[一-龥]|[^\s一-龥,;!?()\[\]{}\"]+|[,;!?()\[\]{}\"]")
NO_RELATION_LABELS = {"unknown"}  # raw labels that micro-F1 of relations excludes


class SpanMetric(Metric):
    """Mean F1 and exact match of free-text answers, as in the CMRC 2018 evaluation."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("f1", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("exact", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add predictions; each is compared with all its accepted answers."""
        for prediction, answers in zip(predictions, references, strict=True):
            self.f1 += max(compute_overlap_f1(prediction, answer) for answer in answers)
            self.exact += any(normalise_text(prediction) == normalise_text(answer) for answer in answers)
            self.count += 1

    def compute(self) -> dict[str, torch.Tensor]:
        """Return f1 and exact_match, scalars in 0..1."""
        return {"f1": self.f1 / self.count, "exact_match": self.exact / self.count}


class ChoiceMetric(Metric):
    """Accuracy, macro-F1 over the labels that occur, and micro-F1 without the label for "no relation".

    If several answers are accepted, a prediction that equals one of them counts as that label. A prediction that is
    not a label is wrong; it is not a class of the macro mean.
    """

    full_state_update = False

    def __init__(self, labels: Sequence[str], no_relation_words: Iterable[str] = ()) -> None:
        super().__init__()
        self.class_indices = {label: index for index, label in enumerate(labels)}
        self.micro_f1_classes = [
            index for label, index in self.class_indices.items() if label not in set(no_relation_words)
        ]
        # [n + 1, 4]: true positives, false positives, true negatives, false negatives; the last row is "no label"
        self.add_state("counts", torch.zeros(len(labels) + 1, 4, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add predictions, each with its accepted label words."""
        pairs = [(p, p if p in a else a[0]) for p, a in zip(predictions, references, strict=True)]
        no_label = len(self.class_indices)
        predicted = torch.tensor([self.class_indices.get(prediction, no_label) for prediction, _ in pairs])
        expected = torch.tensor([self.class_indices[answer] for _, answer in pairs])
        self.counts += multiclass_stat_scores(predicted, expected, num_classes=no_label + 1, average=None)[:, :4]

    def compute(self) -> dict[str, torch.Tensor]:
        """Return accuracy, macro_f1 and micro_f1, scalars in 0..1."""
        true_pos, false_pos, _, false_neg = self.counts.double().unbind(1)
        f1 = 2 * true_pos / (2 * true_pos + false_pos + false_neg).clamp(min=1)
        occurs = (true_pos + false_pos + false_neg)[:-1] > 0
        micro = self.micro_f1_classes
        return {
            "accuracy": true_pos.sum() / (true_pos + false_neg).sum(),
            "macro_f1": f1[:-1][occurs].mean(),
            "micro_f1": 2 * true_pos[micro].sum() / (2 * true_pos + false_pos + false_neg)[micro].sum().clamp(min=1),
        }


def compute_metrics(
    rows: Sequence[tuple[str, Example]], metric_names: Sequence[str], label_words: dict[str, str]
) -> dict[str, float]:
    """Compute the named metrics of (prediction, example) pairs; `label_words` maps raw labels to label words."""
    references = [example.answers for _, example in rows]
    if rows[0][1].choices:
        labels = label_words.values() or sorted({choice for _, example in rows for choice in example.choices})
        metric = ChoiceMetric(
            list(labels), [word for label, word in label_words.items() if label in NO_RELATION_LABELS]
        )
    else:
        metric = SpanMetric()
    metric.update([prediction.strip() for prediction, _ in rows], references)
    values = metric.compute()
    return {name: float(values[name]) for name in metric_names}


def normalise_text(text: str) -> str:
    """Convert to lower case and remove PUNCTUATION."""
    return "".join(char for char in text.lower().strip() if char not in PUNCTUATION)


def segment_text(text: str) -> list[str]:
    """Split a text into Chinese characters and other words, without PUNCTUATION."""
    return SEGMENT_PATTERN.findall(normalise_text(text))


def compute_overlap_f1(prediction: str, answer: str) -> float:
    """Compute F1 in 0..1 from the longest common contiguous run of segments."""
    a = segment_text(prediction)
    b = segment_text(answer)
    common = find_longest_run_length(a, b)
    return 2 * common / (len(a) + len(b)) if common else 0.0


def find_longest_run_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common contiguous run, by dynamic programming over prefix pairs."""
    best = 0
    previous_row = [0] * (len(b) + 1)
    for left in a:
        row = [0] * (len(b) + 1)
        for column, right in enumerate(b, start=1):
            if left == right:
                row[column] = previous_row[column - 1] + 1
                best = max(best, row[column])
        previous_row = row
    return best
