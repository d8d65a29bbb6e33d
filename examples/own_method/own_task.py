"""Four tasks outside the suite: fixed labels, options of each question, a span, and a data set from the hub."""

from pathlib import Path

from tasks.base import Task, clean_text
from tasks.core.formats import parse_csv, parse_json_lines
from tasks.core.sources import File, Hub

DATA = Path(__file__).parent / "data"


class Intent(Task):
    """Fixed labels, from JSON lines. There is only one file, so a fifth of it becomes the test set."""

    name, family, home = "intent", "support", DATA
    files = (File("train", ("intent.jsonl",), parse_json_lines),)
    words = {"refund": "还钱", "delivery": "运输", "invoice": "发票"}  # label in the file -> word in prompt and answer
    template = "客户想问什么，从还钱、运输、发票中选一个。\n客户：{}\n意图："  # constant part, text, cue

    def read_examples(self, raw_part):
        for row in self.read_records(raw_part):
            yield self.make_example([row["text"]], [self.get_label_word(row["intent"])], self.words.values())


class Quiz(Task):
    """Options of each question, from CSV with quotes. The prompt shows them with letters; the answer is a letter."""

    name, family, home = "quiz", "reading", DATA
    files = (File("train", ("quiz-train.csv",), parse_csv), File("test", ("quiz-test.csv",), parse_csv))
    template = "阅读短文，选出答案的字母。\n短文：{}\n问题：{}\n{}\n选择："
    metrics = ("accuracy",)

    def read_examples(self, raw_part):
        for row in self.read_records(raw_part):
            options = [row["first"], row["second"], row["third"]]
            lettered = "\n".join(f"{letter}：{option}" for letter, option in zip("ABC", options, strict=True))
            answer = "ABC"[options.index(row["answer"])]
            yield self.make_example([row["text"], row["question"], lettered], [answer], "ABC", group_text=row["text"])


class Meeting(Task):
    """A span: the answer is a part of the text, and the model generates it."""

    name, family, form, home = "meeting", "extraction", "span", DATA
    files = (
        File("train", ("meeting-train.jsonl",), parse_json_lines),
        File("test", ("meeting-test.jsonl",), parse_json_lines),
    )
    template = "找出句子里的地点。\n句子：{}\n地点："
    metric, metrics = "f1", ("f1", "exact_match")

    def read_examples(self, raw_part):
        for row in self.read_records(raw_part):
            if clean_text(row["place"]) in clean_text(row["text"]):
                yield self.make_example([row["text"]], [row["place"]])
            else:
                self.count_dropped(raw_part, "place not in the text")


class Review(Task):
    """From the hub at a pinned revision with --source hub; otherwise from `<data_dir>/review/`, same fields."""

    name, family = "review", "sentiment"
    hub = Hub(
        id="lansinuote/ChnSentiCorp",
        config=None,
        revision="b0c4c119c3fb33b8e735969202ef9ad13d717e5a",
        splits={"train": "train", "dev": "validation", "test": "test"},
    )
    files = (File("train", ("train.jsonl",), parse_json_lines), File("test", ("test.jsonl",), parse_json_lines))
    words = {"negative": "差评", "positive": "好评"}
    template = "判断评论的好坏，从差评、好评中选一个。\n评论：{}\n好坏："

    def read_examples(self, raw_part):
        for row in self.read_records(raw_part):
            yield self.make_example([row["text"]], [self.get_label_word(row["label"])], self.words.values())
