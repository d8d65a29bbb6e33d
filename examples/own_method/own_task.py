"""Four tasks of one's own: fixed labels, options of each question's own, a span, and one from the hub."""

from pathlib import Path

from tasks.base import Task, clean
from tasks.formats import json_lines, quoted
from tasks.source import File, Hub

DATA = Path(__file__).parent / "data"


class Intent(Task):
    """Fixed labels, from JSON lines. There is one file, so a fifth of it becomes the test set."""

    name, family, home = "intent", "support", DATA
    files = (File("train", ("intent.jsonl",), json_lines),)
    words = {"refund": "还钱", "delivery": "运输", "invoice": "发票"}  # label in the file -> word asked for
    template = "客户想问什么，从还钱、运输、发票中选一个。\n客户：{}\n意图："  # what never changes, the text, the cue

    def read(self, split):
        for row in self.records(split):
            yield self.example([row["text"]], [self.word(row["intent"])], self.words.values())


class Quiz(Task):
    """Options of each question's own, from CSV with quotes. They are shown with letters, and a letter is the answer."""

    name, family, home = "quiz", "reading", DATA
    files = (File("train", ("quiz-train.csv",), quoted), File("test", ("quiz-test.csv",), quoted))
    template = "阅读短文，选出答案的字母。\n短文：{}\n问题：{}\n{}\n选择："
    metrics = ("accuracy",)

    def read(self, split):
        for row in self.records(split):
            options = [row["first"], row["second"], row["third"]]
            shown = "\n".join(f"{letter}：{option}" for letter, option in zip("ABC", options, strict=True))
            answer = "ABC"[options.index(row["answer"])]
            yield self.example([row["text"], row["question"], shown], [answer], "ABC", group=row["text"])


class Meeting(Task):
    """A span: the answer is a part of the text, and is written, not chosen."""

    name, family, form, home = "meeting", "extraction", "span", DATA
    files = (File("train", ("meeting-train.jsonl",), json_lines), File("test", ("meeting-test.jsonl",), json_lines))
    template = "找出句子里的地点。\n句子：{}\n地点："
    metric, metrics = "f1", ("f1", "exact_match")

    def read(self, split):
        for row in self.records(split):
            if clean(row["place"]) in clean(row["text"]):
                yield self.example([row["text"]], [row["place"]])
            else:
                self.drop(split, "place not in the text")


class Review(Task):
    """From the hub at a pinned revision with --source hub; else from `<data_dir>/review/`, in the same fields."""

    name, family = "review", "sentiment"
    hub = Hub(
        id="lansinuote/ChnSentiCorp",
        config=None,
        revision="b0c4c119c3fb33b8e735969202ef9ad13d717e5a",
        splits={"train": "train", "dev": "validation", "test": "test"},
    )
    files = (File("train", ("train.jsonl",), json_lines), File("test", ("test.jsonl",), json_lines))
    words = {"negative": "差评", "positive": "好评"}
    template = "判断评论的好坏，从差评、好评中选一个。\n评论：{}\n好坏："

    def read(self, split):
        for row in self.records(split):
            yield self.example([row["text"]], [self.word(row["label"])], self.words.values())
