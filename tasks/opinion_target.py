"""Opinion target extraction tasks: find the entity that a text comments on."""

from collections.abc import Iterator

from tasks.base import Example, Task, clean_text
from tasks.core.formats import parse_json_lines
from tasks.core.sources import File, GitHub

COTE_REPOSITORY = "lsvih/chinese-customer-review", "c1d68637f5fc1486a2483d58083669baaae7bd9d"


class OpinionTarget(Task):
    """COTE (Li et al. 2018): one target per text, which is a part of the text (its first occurrence if it recurs)."""

    family = "opinion"
    form = "span"
    metric = "f1"
    metrics = ("f1", "exact_match")
    answer_tokens = 24
    licence = "repository MIT; terms of the texts not stated"
    files = (File("train", ("train.txt",), parse_json_lines), File("test", ("test.txt",), parse_json_lines))

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per text that contains its target."""
        for row in self.read_records(split):
            if clean_text(row["ot"]) not in clean_text(row["s"]):
                self.count_dropped(split, "target not in the text")
                continue
            yield self.make_example([row["s"]], [row["ot"]])


class COTEMFW(OpinionTarget):
    """Travel notes from Mafengwo."""

    name = "cote_mfw"
    role = "source"
    template = "找出游记评价的对象。\n游记：{}\n对象："
    hub = GitHub(*COTE_REPOSITORY, "mafengwo")


class COTEBD(OpinionTarget):
    """Comments from Baidu."""

    name = "cote_bd"
    role = "target"
    template = "找出句子评论的目标。\n句子：{}\n目标："
    hub = GitHub(*COTE_REPOSITORY, "baidu")
