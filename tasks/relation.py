"""Relation extraction tasks: classify the relation between two entities of a sentence."""

from collections.abc import Iterator

from tasks.base import Example, Task
from tasks.core.formats import make_tsv_parser
from tasks.core.sources import File, GitHub

PARSE_ROWS = make_tsv_parser("head", "tail", "label", "text")
NRE_REPOSITORY = "thunlp/Chinese_NRE", "2cd47e6dc1b95e8ca3e93b5b8567666c37c5d654"
UNKNOWN_LABEL = "unknown"
SANWEN_WORDS = {
    UNKNOWN_LABEL: "未知",
    "Create": "创建",
    "Use": "使用",
    "Near": "贴近",
    "Social": "社会",
    "Located": "位于",
    "Ownership": "占有",
    "General-Special": "一般",
    "Family": "家庭",
    "Part-Whole": "部分",
}
FINRE_WORDS = {UNKNOWN_LABEL: "未知"} | {  # the order of relation2id.txt
    name: name
    for name in (
        "注资 拥有 纠纷 自己 增持 重组 买资 签约 持股 交易 入股 转让 成立 分析 合作 帮助 发行 商讨 合并 竞争 订单 减持 合资 收购 借壳 欠款 "
        "被发行 被转让 被成立 被注资 被持股 被拥有 被收购 被帮助 被借壳 被买资 被欠款 被增持 拟收购 被减持 被分析 被入股 被拟收购"
    ).split()
}


class Relation(Task):
    """Base class of the relation tasks.

    Rows with the same head, tail and text are one example. All rows of a sentence stay in one split, because many
    rows are mirrored (head and tail swapped).
    """

    family = "relation"
    metrics = ("accuracy", "micro_f1")

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per row; the sentence is truncatable."""
        for row in self.read_records(split):
            values = row["text"], row["head"], row["tail"]
            yield self.make_example(
                values, [self.get_label_word(row["label"])], self.words.values(), group_text=row["text"]
            )

    def merge_duplicates(self, same: list[Example]) -> Example:
        """Merge the relations of a pair: all are accepted, and the first one in label order is the training target.

        `unknown` (no relation found) is dropped if there is a named relation.
        """
        named = {answer for example in same for answer in example.answers} - {self.words[UNKNOWN_LABEL]}
        answers = tuple(word for word in self.words.values() if word in named) or (self.words[UNKNOWN_LABEL],)
        return same[0]._replace(answers=answers)


class SanWen(Relation):
    """SanWen (Xu et al. 2017): literary prose. Files have CRLF line ends; `<N>` replaces numbers."""

    name = "sanwen"
    role = "source"
    words = SANWEN_WORDS
    template = f"判断两个词在文中的关系，从{'、'.join(SANWEN_WORDS.values())}中选一个。\n文：{{}}\n词一：{{}}\n词二：{{}}\n关系："
    licence = "repository MIT; terms of the texts not stated"
    files = (
        File("train", ("train.txt",), PARSE_ROWS),
        File("dev", ("valid.txt",), PARSE_ROWS),
        File("test", ("test.txt",), PARSE_ROWS),
    )
    hub = GitHub(*NRE_REPOSITORY, "data/SanWen")


class FinRE(Relation):
    """FinRE (Li et al. 2019): financial news. For every (head, tail) row, the same file has a (tail, head) row."""

    name = "finre"
    role = "target"
    words = FINRE_WORDS
    template = f"判断主体与客体的关系，从{'、'.join(FINRE_WORDS.values())}中选一个。\n句子：{{}}\n主体：{{}}\n客体：{{}}\n关系："
    licence = "repository MIT; terms of the texts not stated"
    files = (
        File("train", ("train.txt",), PARSE_ROWS),
        File("dev", ("valid.txt",), PARSE_ROWS),
        File("test", ("test.txt",), PARSE_ROWS),
    )
    hub = GitHub(*NRE_REPOSITORY, "data/FinRE")
