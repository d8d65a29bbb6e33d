"""Controls without training: the frozen backbone, and the most frequent training answer."""

from collections import Counter
from collections.abc import Sequence

from methods.base import Method, Stage
from tasks.core.types import EncodedExample


class ZeroShot(Method):
    """The frozen backbone with the task's prompt."""

    name = "zero_shot"
    trained_part = "nothing (the frozen backbone, prompted)"
    uses_gradient_descent = False
    is_seed_independent = True


class Majority(Method):
    """The most frequent answer of the training examples; ties go to the first of the choices."""

    name = "majority"
    trained_part = "nothing (the most frequent training answer)"
    uses_gradient_descent = False
    is_seed_independent = True

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        super().begin_stage(stage, seeds, train_examples)
        self.answer_counts = [Counter(item.example.answers[0] for item in items) for items in train_examples]

    def predict_without_scoring(self, examples: Sequence[EncodedExample], slots: Sequence[int]) -> list[str]:
        return [
            self._most_frequent_answer(item, self.answer_counts[slot])
            for item, slot in zip(examples, slots, strict=True)
        ]

    @staticmethod
    def _most_frequent_answer(item: EncodedExample, answer_counts: Counter[str]) -> str:
        # sorted, so that a tie does not depend on the order of the training files
        options = item.example.choices or sorted(answer_counts)
        return max(options, key=lambda option: answer_counts[option], default="")
