"""Reading comprehension tasks: answer a question on a text by a span of it or by the letter of an option."""

from collections.abc import Iterator

from tasks.base import Example, Task, clean_text
from tasks.core.formats import parse_multiple_choice, parse_squad
from tasks.core.sources import File, GitHub, Hub

OPTION_LETTERS = "ABCD"


class SpanReading(Task):
    """Base class of tasks whose answers are spans of the text. Answer offsets are not used.

    All references are accepted in scoring; the training target is the first one that occurs in the text.
    """

    family = "reading"
    form = "span"
    metric = "f1"
    metrics = ("f1", "exact_match")

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per question that has an answer in the text; questions on one text stay in one split."""
        for row in self.read_records(split):
            context = clean_text(row["context"])
            answers = [clean_text(text) for text in row["answers"]["text"]]
            if not clean_text(row["question"]):
                self.count_dropped(split, "empty question")
                continue
            in_text = [text for text in answers if text and text in context]
            if not in_text:
                self.count_dropped(split, "no answer is in the text")
                continue
            not_in_text = [text for text in answers if text and text not in context]
            self.count_dropped(split, "references not in the text (kept for scoring)", len(not_in_text))
            yield self.make_example([context, row["question"]], [*in_text, *not_in_text], group_text=context)


class CMRC2018(SpanReading):
    """CMRC 2018 (Cui et al. 2019). Test is hidden, so dev is used as test; trial replaces a missing train set."""

    name = "cmrc2018"
    role = "source"
    template = "阅读文章，用文章里的原文回答。\n文章：{}\n问题：{}\n回答："
    answer_tokens = 64
    licence = "CC BY-SA 4.0"
    files = (
        File("train", ("squad-style-data/cmrc2018_train.json",), parse_squad),
        File("train", ("data/cmrc2018_train.json",), parse_squad),
        File("dev", ("squad-style-data/cmrc2018_trial.json",), parse_squad),
        File("test", ("squad-style-data/cmrc2018_dev.json",), parse_squad),
        File("test", ("data/cmrc2018_dev.json",), parse_squad),
    )
    hub = Hub(
        "hfl/cmrc2018",
        None,
        "137f2c45a24275fb68f6961c4d357f46288886aa",
        {"train": "train", "dev": "test", "test": "validation"},  # the hub's "test" is the trial set
    )


class DRCD(SpanReading):
    """DRCD (Shao et al. 2018), in Traditional characters, which are kept as published."""

    name = "drcd"
    role = "target"
    template = "根據短文，找出問題的答案。\n短文：{}\n問題：{}\n答案："
    licence = "CC BY-SA 3.0"
    files = (
        File("train", ("DRCD_training.json",), parse_squad),
        File("dev", ("DRCD_dev.json",), parse_squad),
        File("test", ("DRCD_test.json",), parse_squad),
    )
    hub = Hub(
        "clue/clue",
        "drcd",
        "28178267a609dd08bdc703dd6c931dfc2c2f4431",
        {"train": "train", "dev": "validation", "test": "test"},
    )


class C3(Task):
    """C3 (Sun et al. 2020): each question has its own two to four options and is answered by letter.

    The raw answer is the text of an option and is converted to its letter. Two questions contain the correct option
    twice; both letters are accepted. The test set on the hub has no answers, so the authors' files are used.
    """

    name = "c3"
    role = "target"
    family = "reading"
    metrics = ("accuracy",)
    template = "阅读材料，从选项中选出答案的字母。\n材料：{}\n问题：{}\n{}\n选择："
    licence = "non-commercial research only"
    files = tuple(
        File(part, (f"c3-m-{part}.json", f"c3-d-{part}.json"), parse_multiple_choice)
        for part in ("train", "dev", "test")
    )
    hub = GitHub("nlpdata/c3", "1f41682ebb684d63afe7c583c8f38e137fc8a826", "data")

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per question whose answer is among its options; questions on one text stay in one split."""
        for row in self.read_records(split):
            text = "\n".join(row["context"])
            options = row["choice"]
            letters = OPTION_LETTERS[: len(options)]
            correct = [letter for letter, option in zip(letters, options, strict=True) if option == row["answer"]]
            if not correct:
                self.count_dropped(split, "answer is none of the options")
                continue
            option_lines = "\n".join(
                f"{letter}：{clean_text(option)}" for letter, option in zip(letters, options, strict=True)
            )
            yield self.make_example([text, row["question"], option_lines], correct, letters, group_text=text)
