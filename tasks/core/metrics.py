"""Scores in 0..1 of predicted texts, on torchmetrics. No model and no tokenizer: they can be recomputed from a file.

Spans follow the CMRC 2018 evaluation (ymcui/cmrc2018, squad-style-data/cmrc2018_evaluate.py): both texts lose its
list of punctuation and are segmented into Chinese characters and words of anything else; F1 comes from the longest
common *contiguous* run of segments, the best over the references. It splits words by nltk's word_tokenize; here a
word ends at white space or at one of WORD's marks, which needs no nltk data and differs only inside Latin text.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_stat_scores

from tasks.core.types import Example

PUNCTUATION = frozenset(
    "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
)  # its list; "……" is two characters, never met
SEGMENT_PATTERN = re.compile(r"[一-龥]|[^\s一-龥,;!?()\[\]{}\"]+|[,;!?()\[\]{}\"]")
NO_RELATION_LABELS = {"unknown"}  # raw labels that micro-F1 of relations leaves out


class SpanMetric(Metric):
    """Mean F1 and exact match of free-text answers, as the CMRC 2018 evaluation counts them."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("f1", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("exact", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        for prediction, answers in zip(predictions, references, strict=True):
            self.f1 += max(compute_overlap_f1(prediction, answer) for answer in answers)
            self.exact += any(normalise_text(prediction) == normalise_text(answer) for answer in answers)
            self.count += 1

    def compute(self) -> dict[str, torch.Tensor]:
        return {"f1": self.f1 / self.count, "exact_match": self.exact / self.count}


class ChoiceMetric(Metric):
    """Accuracy, macro-F1 over the labels that occur, and micro-F1 without the label for "no relation".

    Where several answers are accepted, a prediction that is one of them counts as that label. A prediction that is no
    label at all is wrong, and no class of its own in the mean.
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
        pairs = [(p, p if p in a else a[0]) for p, a in zip(predictions, references, strict=True)]
        other = len(self.class_indices)
        guess = torch.tensor([self.class_indices.get(prediction, other) for prediction, _ in pairs])
        truth = torch.tensor([self.class_indices[answer] for _, answer in pairs])
        self.counts += multiclass_stat_scores(guess, truth, num_classes=other + 1, average=None)[:, :4]

    def compute(self) -> dict[str, torch.Tensor]:
        hit, false, _, missed = self.counts.double().unbind(1)
        f1 = 2 * hit / (2 * hit + false + missed).clamp(min=1)
        present = (hit + false + missed)[:-1] > 0
        n = self.micro_f1_classes
        return {
            "accuracy": hit.sum() / (hit + missed).sum(),
            "macro_f1": f1[:-1][present].mean(),
            "micro_f1": 2 * hit[n].sum() / (2 * hit + false + missed)[n].sum().clamp(min=1),
        }


def compute_metrics(
    rows: Sequence[tuple[str, Example]], metric_names: Sequence[str], label_words: dict[str, str]
) -> dict[str, float]:
    """The named metrics of (prediction, example) rows; `words` maps raw labels to label words."""
    references = [example.answers for _, example in rows]
    if rows[0][1].choices:
        labels = label_words.values() or sorted({choice for _, example in rows for choice in example.choices})
        metric = ChoiceMetric(
            list(labels), [word for label, word in label_words.items() if label in NO_RELATION_LABELS]
        )
    else:
        metric = SpanMetric()
    metric.update([prediction.strip() for prediction, _ in rows], references)
    found = metric.compute()
    return {name: float(found[name]) for name in metric_names}


def normalise_text(text: str) -> str:
    """Lower case, without the evaluation's punctuation."""
    return "".join(char for char in text.lower().strip() if char not in PUNCTUATION)


def segment_text(text: str) -> list[str]:
    """Chinese characters and words of anything else, without punctuation."""
    return SEGMENT_PATTERN.findall(normalise_text(text))


def compute_overlap_f1(prediction: str, answer: str) -> float:
    """F1 of the longest common contiguous run of segments."""
    a, b = segment_text(prediction), segment_text(answer)
    common = find_longest_run_length(a, b)
    return 2 * common / (len(a) + len(b)) if common else 0.0


def find_longest_run_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest contiguous run that both have."""
    best, above = 0, [0] * (len(b) + 1)
    for left in a:
        row = [0] * (len(b) + 1)
        for place, right in enumerate(b, start=1):
            if left == right:
                row[place] = above[place - 1] + 1
                best = max(best, row[place])
        above = row
    return best
