"""News titles with two words of their topic and one word of another; some words belong to two topics."""

from random import Random

from tasks.synthetic.lexicon import CITIES, TIMES, TOPICS

FRAMES = (
    "{city}{a}{verb}{b}，{c}{end}", "{time}{a}与{c}：{b}{end}", "{a}{verb}{b}，不只是{c}", "{c}之外，{city}{b}和{a}{end}",
    "{time}起{b}{verb}{a}，{c}{end}", "关注{a}：{c}{verb}{b}", "{b}还是{c}？{city}{a}{end}", "从{c}到{b}，{a}{end}",
)  # fmt: skip
VERBS = ("迎来", "影响", "带动", "告别", "聚焦", "遭遇", "推动", "回应")
ENDS = ("引关注", "有新变化", "再升温", "成焦点", "怎么看", "仍在继续")


def make_title(rng: Random, topic: str, others: tuple[str, ...]) -> str:
    """Make a title on `topic` that contains a word of one of the `others` in any position."""
    a, b = rng.sample(TOPICS[topic], 2)
    c = rng.choice([word for word in TOPICS[rng.choice(others)] if word not in TOPICS[topic]])
    frame = rng.choice(FRAMES)
    return frame.format(
        a=a, b=b, c=c, city=rng.choice(CITIES), time=rng.choice(TIMES), verb=rng.choice(VERBS), end=rng.choice(ENDS)
    )


THUCNEWS = {
    "finance": "财经", "realty": "房产", "stocks": "股票", "education": "教育", "science": "科技", "society": "社会", "politics": "时政",
    "sports": "体育", "game": "游戏", "entertainment": "娱乐",
}  # fmt: skip
TNEWS = {
    0: "教育", 1: "财经", 2: "房产", 3: "旅游", 4: "科技", 5: "体育", 6: "电竞", 7: "文化", 8: "汽车", 9: "故事", 10: "娱乐", 11: "军事",
    12: "农业", 13: "国际", 14: "股票",
}  # fmt: skip


def other_topics(labels: dict, topic: str) -> tuple[str, ...]:
    """Return the topics of distractors: those of the same task, so that a distractor suggests a wrong label."""
    return tuple(name for name in labels.values() if name != topic)
