"""What a method has to beat: the backbone as it is, and the commonest training answer."""

from collections import Counter
from collections.abc import Sequence

from methods.base import Method, Stage
from tasks.example import Encoded


class ZeroShot(Method):
    """The frozen backbone with the task's prompt."""

    name = "zero_shot"
    what = "nothing (the frozen backbone, prompted)"
    trains, fixed = False, True


class Majority(Method):
    """The commonest answer of the training examples; between equals the first of the choices."""

    name = "majority"
    what = "nothing (the commonest training answer)"
    trains, fixed = False, True

    def enter(self, stage: Stage, seeds: Sequence[int], train: Sequence[Sequence[Encoded]] = ()) -> None:
        super().enter(stage, seeds, train)
        self.answer_counts = [Counter(item.example.answers[0] for item in items) for items in train]

    def guess(self, items: Sequence[Encoded], slots: Sequence[int]) -> list[str]:
        return [
            self._most_frequent_answer(item, self.answer_counts[slot]) for item, slot in zip(items, slots, strict=True)
        ]

    @staticmethod
    def _most_frequent_answer(item: Encoded, answer_counts: Counter[str]) -> str:
        options = item.example.choices or sorted(
            answer_counts
        )  # sorted: the order of the training files must not decide
        return max(options, key=lambda option: answer_counts[option], default="")
