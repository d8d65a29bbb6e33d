"""Sentence pairs: do the two mean the same?"""

from collections.abc import Iterator

from tasks.base import Example, Task
from tasks.formats import json_lines, quoted, tabbed
from tasks.source import File, Hub

PAIR = tabbed("sentence1", "sentence2", "label")
CLUE = "28178267a609dd08bdc703dd6c931dfc2c2f4431"


class Paraphrase(Task):
    family = "paraphrase"

    def read(self, split: str) -> Iterator[Example]:
        for row in self.records(split):
            pair = row["sentence1"], row["sentence2"]
            field = int(len(pair[1]) > len(pair[0]))
            # sorted: a pair in swapped order is the same pair, and must not be in train and test
            yield self.example(pair, [self.word(row["label"])], self.words.values(), field=field, key=sorted(pair))


class AFQMC(Paraphrase):
    """Ant Financial questions (CLUE). Test labels are not public, so dev is our test. `***` masks digits."""

    name, role = "afqmc", "source"
    words = {"0": "无关", "1": "同义"}
    template = "判断两个问题的意思，从无关、同义中选一个。\n问题一：{}\n问题二：{}\n意思："
    licence = "academic research only (CSTS repository)"
    files = (
        File("train", ("train.txt",), PAIR),
        File("test", ("dev.txt",), PAIR),
        File("", ("test.txt",), tabbed("sentence1", "sentence2"), note="unlabelled"),
        File("", ("dataclue/dev.json",), json_lines, note="a subset of dev.txt"),
    )
    hub = Hub("clue/clue", "afqmc", CLUE, {"train": "train", "test": "validation"})


class BQ(Paraphrase):
    """Bank questions (Chen et al. 2018)."""

    name, role = "bq", "source"
    words = {"0": "不符", "1": "一致"}
    template = "判断两个问法是否一致，从不符、一致中选一个。\n问法一：{}\n问法二：{}\n判断："
    licence = "not stated; the corpus asks for an application"
    files = (
        File("train", ("train.csv",), quoted),
        File("dev", ("dev.csv",), quoted),
        File("test", ("test.csv",), quoted),
    )
    hub = Hub(
        "C-MTEB/BQ",
        None,
        "e3dda5e115e487b39ec7e618c0c6a29137052a55",
        {"train": "train", "dev": "validation", "test": "test"},
        {"score": "label"},
    )


class LCQMC(Paraphrase):
    """Questions from Baidu Zhidao (Liu et al. 2018)."""

    name, role = "lcqmc", "target"
    words = {"0": "不同", "1": "相同"}
    template = "判断两个句子的意思，从不同、相同中选一个。\n句子一：{}\n句子二：{}\n意思："
    licence = "academic research only (CSTS repository)"
    files = (
        File("train", ("train.txt",), PAIR),
        File("dev", ("dev.txt",), PAIR),
        File("test", ("test.txt",), PAIR),
    )
    hub = Hub(
        "C-MTEB/LCQMC",
        None,
        "17f9b096f80380fce5ed12a9be8be7784b337daf",
        {"train": "train", "dev": "validation", "test": "test"},
        {"score": "label"},
    )
