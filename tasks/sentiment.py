"""Sentiment tasks: classify the polarity or rating of reviews."""

from collections.abc import Iterator

from tasks.base import Example, Task
from tasks.core.formats import make_tsv_parser, parse_json_lines
from tasks.core.sources import File, Hub


class Sentiment(Task):
    """Base class of the sentiment tasks."""

    family = "sentiment"

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per review."""
        for row in self.read_records(split):
            yield self.make_example([row["text"]], [self.get_label_word(row["label"])], self.words.values())


class Amazon(Sentiment):
    """The Chinese part of the multilingual Amazon reviews (Keung et al. 2020); labels 0-4 are 1-5 stars."""

    name = "amazon"
    role = "source"
    words = {"0": "非常差", "1": "较差", "2": "一般", "3": "较好", "4": "非常好"}
    template = "给评论打分，从非常差、较差、一般、较好、非常好中选一个。\n评论：{}\n评分："
    licence = "Amazon's licence for academic research; withdrawn by its owner"
    files = (
        File("train", ("train.jsonl",), parse_json_lines),
        File("dev", ("validation.jsonl",), parse_json_lines),
        File("test", ("test.jsonl",), parse_json_lines),
    )
    hub = Hub(
        "mteb/AmazonReviewsClassification",
        "zh",
        "6b5d328eaae8ef408dd7d775040245cf86f92e9d",
        {"train": "train", "dev": "validation", "test": "test"},
    )


class ChnSent(Sentiment):
    """ChnSentiCorp: hotels, laptops, books. 330 of 1,178 distinct test texts are in train and are removed there."""

    name = "chnsent"
    role = "target"
    words = {"0": "负面", "1": "正面"}
    aliases = {"negative": "0", "positive": "1"}
    template = "判断评论的情感，从负面、正面中选一个。\n评论：{}\n情感："
    licence = "not stated (the UER-py repository is Apache 2.0)"
    files = (
        File("train", ("train.tsv",), make_tsv_parser("label", "text", has_header=True)),
        File("dev", ("dev.tsv",), make_tsv_parser("label", "text", has_header=True)),
        File("test", ("test.tsv",), make_tsv_parser("label", "text", has_header=True)),
    )
    hub = Hub(
        "lansinuote/ChnSentiCorp",
        None,
        "b0c4c119c3fb33b8e735969202ef9ad13d717e5a",
        {"train": "train", "dev": "validation", "test": "test"},
    )
