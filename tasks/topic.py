"""Topic classification tasks on news titles."""

from collections.abc import Iterator

from tasks.base import Example, Task
from tasks.core.formats import make_tsv_parser, parse_json_lines
from tasks.core.sources import File, GitHub, Hub

THUCNEWS_WORDS = {
    "finance": "财经",
    "realty": "房产",
    "stocks": "股票",
    "education": "教育",
    "science": "科技",
    "society": "社会",
    "politics": "时政",
    "sports": "体育",
    "game": "游戏",
    "entertainment": "娱乐",
}
TNEWS_WORDS = {  # CLUE's codes; 105 and 111 do not exist
    "100": "故事",
    "101": "文化",
    "102": "娱乐",
    "103": "体育",
    "104": "财经",
    "106": "房产",
    "107": "汽车",
    "108": "教育",
    "109": "科技",
    "110": "军事",
    "112": "旅游",
    "113": "国际",
    "114": "股票",
    "115": "农业",
    "116": "电竞",
}


class Topic(Task):
    """Base class of the topic tasks."""

    family = "topic"

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per title."""
        for row in self.read_records(split):
            yield self.make_example([row["sentence"]], [self.get_label_word(row["label"])], self.words.values())


class THUCNews(Topic):
    """Ten classes of THUCNews titles, named by class.txt. The label words of MP2 belong to a different set of ten."""

    name = "thucnews"
    role = "source"
    words = THUCNEWS_WORDS
    template = f"给新闻分类，从{'、'.join(THUCNEWS_WORDS.values())}中选一个。\n新闻：{{}}\n类别："
    licence = "not stated"
    files = (
        File("train", ("train.txt",), make_tsv_parser("sentence", "label"), "class.txt"),
        File("dev", ("dev.txt",), make_tsv_parser("sentence", "label"), "class.txt"),
        File("test", ("test.txt",), make_tsv_parser("sentence", "label"), "class.txt"),
    )
    hub = GitHub(
        "649453932/Chinese-Text-Classification-Pytorch", "6cb26819af7b646275aff8a4693676f2849e67f6", "THUCNews/data"
    )


class TNews(Topic):
    """TNEWS of CLUE (Toutiao titles). Test labels are not public, so dev is used as test.

    There are two id systems: 0..14 in DataCLUE, in the order of its labels.json, and 100..116 in CLUE. Ids of
    DataCLUE without labels.json raise an error. DataCLUE's test_public has a different class distribution.
    """

    name = "tnews"
    role = "target"
    words = TNEWS_WORDS
    aliases = {name: code for code, name in TNEWS_WORDS.items()}
    template = f"判断标题的主题，从{'、'.join(TNEWS_WORDS.values())}中选一个。\n标题：{{}}\n主题："
    licence = "not stated"
    files = (
        File("train", ("train.json",), parse_json_lines, "labels.json"),
        File("test", ("dev.json",), parse_json_lines, "labels.json"),
        File(
            "",
            ("test_public.json",),
            parse_json_lines,
            "labels.json",
            note="DataCLUE's own, with a different class distribution",
        ),
        *(
            File("", (f"fewclue/{name}.json",), parse_json_lines, note="FewCLUE's sample overlaps train and dev")
            for name in ("train_few_all", "dev_few_all", "test_public")
        ),
    )
    hub = Hub(
        "clue/clue",
        "tnews",
        "28178267a609dd08bdc703dd6c931dfc2c2f4431",
        {"train": "train", "test": "validation"},
    )
