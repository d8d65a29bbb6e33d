"""Natural language inference tasks: entailment, neutral or contradiction between two sentences."""

from collections.abc import Iterator

from tasks.base import Example, Task
from tasks.core.formats import make_tsv_parser, parse_json_lines
from tasks.core.sources import File, Hub

CLUE_REVISION = "28178267a609dd08bdc703dd6c931dfc2c2f4431"


class NLI(Task):
    """Base class of the inference tasks.

    The label "-" marks pairs without annotator agreement; they are dropped, as by the authors of the data sets.
    """

    family = "inference"
    pair_columns = ("sentence1", "sentence2")  # premise and hypothesis

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per pair; the longer sentence is truncatable."""
        for row in self.read_records(split):
            if row["label"] == "-":
                self.count_dropped(split, "no agreed label")
                continue
            pair = tuple(row[name] for name in self.pair_columns)
            longer = int(len(pair[1]) > len(pair[0]))
            yield self.make_example(
                pair, [self.get_label_word(row["label"])], self.words.values(), truncatable_index=longer
            )


class CMNLI(NLI):
    """CLUE's machine-translated MNLI and XNLI. Test labels are not public, so dev is used as test."""

    name = "cmnli"
    role = "source"
    words = {"contradiction": "冲突", "neutral": "无关", "entailment": "支持"}
    template = "判断第二句与第一句的关系，从冲突、无关、支持中选一个。\n第一句：{}\n第二句：{}\n关系："
    licence = "academic research only (CSTS repository)"
    files = (
        File("train", ("train.txt",), make_tsv_parser("sentence1", "sentence2", "label")),
        File("test", ("dev.txt",), make_tsv_parser("sentence1", "sentence2", "label")),
        File("", ("test.txt",), make_tsv_parser("sentence1", "sentence2"), note="unlabelled"),
    )
    hub = Hub("clue/clue", "cmnli", CLUE_REVISION, {"train": "train", "test": "validation"})


class OCNLI(NLI):
    """OCNLI (Hu et al. 2020), written in Chinese. Test labels are not public, so dev is used as test."""

    name = "ocnli"
    role = "target"
    words = {"contradiction": "矛盾", "neutral": "中立", "entailment": "蕴含"}
    template = "判断假设与前提的关系，从矛盾、中立、蕴含中选一个。\n前提：{}\n假设：{}\n关系："
    licence = "CC BY-NC 2.0"
    files = (
        *(File("train", (f"train{size}.json",), parse_json_lines) for size in (".50k", "", ".30k", ".10k", ".3k")),
        File("test", ("dev.json",), parse_json_lines),
        File("", ("test.json",), parse_json_lines, note="unlabelled"),
    )
    hub = Hub("clue/clue", "ocnli", CLUE_REVISION, {"train": "train", "test": "validation"})
