"""Paraphrase tasks: decide whether two sentences have the same meaning."""

from collections.abc import Iterator

from tasks.base import Example, Task
from tasks.core.formats import make_tsv_parser, parse_csv, parse_json_lines
from tasks.core.sources import File, Hub

PARSE_PAIRS = make_tsv_parser("sentence1", "sentence2", "label")
CLUE_REVISION = "28178267a609dd08bdc703dd6c931dfc2c2f4431"


class Paraphrase(Task):
    """Base class of the paraphrase tasks."""

    family = "paraphrase"

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per pair; the longer sentence is truncatable."""
        for row in self.read_records(split):
            pair = row["sentence1"], row["sentence2"]
            longer = int(len(pair[1]) > len(pair[0]))
            # sorted: a pair in swapped order is a duplicate, which must not be in both train and test
            yield self.make_example(
                pair,
                [self.get_label_word(row["label"])],
                self.words.values(),
                truncatable_index=longer,
                identity_values=sorted(pair),
            )


class AFQMC(Paraphrase):
    """Ant Financial questions (CLUE). Test labels are not public, so dev is used as test. `***` masks digits."""

    name = "afqmc"
    role = "source"
    words = {"0": "无关", "1": "同义"}
    template = "判断两个问题的意思，从无关、同义中选一个。\n问题一：{}\n问题二：{}\n意思："
    licence = "academic research only (CSTS repository)"
    files = (
        File("train", ("train.txt",), PARSE_PAIRS),
        File("test", ("dev.txt",), PARSE_PAIRS),
        File("", ("test.txt",), make_tsv_parser("sentence1", "sentence2"), note="unlabelled"),
        File("", ("dataclue/dev.json",), parse_json_lines, note="a subset of dev.txt"),
    )
    hub = Hub("clue/clue", "afqmc", CLUE_REVISION, {"train": "train", "test": "validation"})


class BQ(Paraphrase):
    """Bank questions (Chen et al. 2018)."""

    name = "bq"
    role = "source"
    words = {"0": "不符", "1": "一致"}
    template = "判断两个问法是否一致，从不符、一致中选一个。\n问法一：{}\n问法二：{}\n判断："
    licence = "not stated; the corpus asks for an application"
    files = (
        File("train", ("train.csv",), parse_csv),
        File("dev", ("dev.csv",), parse_csv),
        File("test", ("test.csv",), parse_csv),
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

    name = "lcqmc"
    role = "target"
    words = {"0": "不同", "1": "相同"}
    template = "判断两个句子的意思，从不同、相同中选一个。\n句子一：{}\n句子二：{}\n意思："
    licence = "academic research only (CSTS repository)"
    files = (
        File("train", ("train.txt",), PARSE_PAIRS),
        File("dev", ("dev.txt",), PARSE_PAIRS),
        File("test", ("test.txt",), PARSE_PAIRS),
    )
    hub = Hub(
        "C-MTEB/LCQMC",
        None,
        "17f9b096f80380fce5ed12a9be8be7784b337daf",
        {"train": "train", "dev": "validation", "test": "test"},
        {"score": "label"},
    )
