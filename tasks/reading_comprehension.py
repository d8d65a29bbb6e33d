"""Reading comprehension: answer a question from a text, in its words or by the letter of an option."""

from collections.abc import Iterator

from tasks.base import Example, Task, clean_text
from tasks.core.formats import parse_multiple_choice, parse_squad
from tasks.core.sources import File, GitHub, Hub

OPTION_LETTERS = "ABCD"


class SpanReading(Task):
    """Spans. Offsets are never used: an answer counts as in the text where the text has it.

    All references are accepted when scoring; the first that is in the text is trained on.
    """

    family, form = "reading", "span"
    metric, metrics = "f1", ("f1", "exact_match")

    def read_examples(self, split: str) -> Iterator[Example]:
        for row in self.read_records(split):
            context, answers = clean_text(row["context"]), [clean_text(text) for text in row["answers"]["text"]]
            if not clean_text(row["question"]):
                self.count_dropped(split, "empty question")
                continue
            found = [text for text in answers if text and text in context]
            if not found:
                self.count_dropped(split, "no answer is in the text")
                continue
            lost = [text for text in answers if text and text not in context]
            self.count_dropped(split, "references not in the text (kept for scoring)", len(lost))
            yield self.make_example([context, row["question"]], [*found, *lost], group_text=context)


class CMRC2018(SpanReading):
    """CMRC 2018 (Cui et al. 2019). The test set is hidden, so dev is our test; trial stands in for a missing train."""

    name, role = "cmrc2018", "source"
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
        {"train": "train", "dev": "test", "test": "validation"},  # its "test" is the trial set
    )


class DRCD(SpanReading):
    """DRCD (Shao et al. 2018), in Traditional characters, which stay as published."""

    name, role = "drcd", "target"
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
    """C3 (Sun et al. 2020): two to four options of the question's own, answered by letter.

    The answer is given as text, so its letter is found here; two questions have the right option twice, and then
    both letters are accepted. The hub's test has no answers, so the authors' files are used.
    """

    name, role, family = "c3", "target", "reading"
    metrics = ("accuracy",)
    template = "阅读材料，从选项中选出答案的字母。\n材料：{}\n问题：{}\n{}\n选择："
    licence = "non-commercial research only"
    files = tuple(
        File(part, (f"c3-m-{part}.json", f"c3-d-{part}.json"), parse_multiple_choice)
        for part in ("train", "dev", "test")
    )
    hub = GitHub("nlpdata/c3", "1f41682ebb684d63afe7c583c8f38e137fc8a826", "data")

    def read_examples(self, split: str) -> Iterator[Example]:
        for row in self.read_records(split):
            text, options = "\n".join(row["context"]), row["choice"]
            letters = OPTION_LETTERS[: len(options)]
            right = [letter for letter, option in zip(letters, options, strict=True) if option == row["answer"]]
            if not right:
                self.count_dropped(split, "answer is none of the options")
                continue
            shown = "\n".join(
                f"{letter}：{clean_text(option)}" for letter, option in zip(letters, options, strict=True)
            )
            yield self.make_example([text, row["question"], shown], right, letters, group_text=text)
