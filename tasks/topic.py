"""Titles of news: what are they about?"""

from collections.abc import Iterator

from tasks.base import Example, Task
from tasks.formats import json_lines, tabbed
from tasks.source import File, GitHub, Hub

THUCNEWS = {
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
TNEWS = {  # CLUE's codes; 105 and 111 do not exist
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
    family = "topic"

    def read(self, split: str) -> Iterator[Example]:
        for row in self.records(split):
            yield self.example([row["sentence"]], [self.word(row["label"])], self.words.values())


class THUCNews(Topic):
    """Ten classes of THUCNews titles, named by class.txt. Not the ten that MP2's label words belong to."""

    name, role = "thucnews", "source"
    words = THUCNEWS
    template = f"给新闻分类，从{'、'.join(THUCNEWS.values())}中选一个。\n新闻：{{}}\n类别："
    licence = "not stated"
    files = (
        File("train", ("train.txt",), tabbed("sentence", "label"), "class.txt"),
        File("dev", ("dev.txt",), tabbed("sentence", "label"), "class.txt"),
        File("test", ("test.txt",), tabbed("sentence", "label"), "class.txt"),
    )
    hub = GitHub(
        "649453932/Chinese-Text-Classification-Pytorch", "6cb26819af7b646275aff8a4693676f2849e67f6", "THUCNews/data"
    )


class TNews(Topic):
    """TNEWS of CLUE (Toutiao titles); its test labels are not public, so dev is our test.

    Two id systems share a range: DataCLUE's 0..14 follow its labels.json, CLUE's codes are 100..116. So ids without
    a list of names are refused, and names are taken by meaning. DataCLUE's test_public has another class mix.
    """

    name, role = "tnews", "target"
    words = TNEWS
    aliases = {name: code for code, name in TNEWS.items()}
    template = f"判断标题的主题，从{'、'.join(TNEWS.values())}中选一个。\n标题：{{}}\n主题："
    licence = "not stated"
    files = (
        File("train", ("train.json",), json_lines, "labels.json"),
        File("test", ("dev.json",), json_lines, "labels.json"),
        File("", ("test_public.json",), json_lines, "labels.json", note="DataCLUE's own, with another class mix"),
        *(
            File("", (f"fewclue/{name}.json",), json_lines, note="FewCLUE's sample overlaps train and dev")
            for name in ("train_few_all", "dev_few_all", "test_public")
        ),
    )
    hub = Hub(
        "clue/clue",
        "tnews",
        "28178267a609dd08bdc703dd6c931dfc2c2f4431",
        {"train": "train", "test": "validation"},
    )
