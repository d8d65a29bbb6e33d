"""Reviews of several judged aspects. The label is a weighted sum: polarities are mixed and may be negated, and a clause
after 但是 counts double.
"""

from random import Random

from tasks.synthetic.lexicon import ASPECTS, BAD, GOOD, LIGHT, NEGATION, STRONG

FILLERS = ("朋友推荐的，", "第二次来，", "昨天到的，", "用了一周，", "", "", "看了介绍才选的，")
ENDINGS = ("。", "！", "，就这样。", "，供参考。")


def clause(rng: Random, aspect: str) -> tuple[str, int]:
    """Make a clause on one aspect, and its weight: 1 or 2, negative for a complaint."""
    good = rng.random() < 0.5
    word = rng.choice(GOOD if good else BAD)
    sign = 1 if good else -1
    kind = rng.random()
    if kind < 0.25:
        return f"{aspect}{rng.choice(NEGATION)}{word}", -sign
    if kind < 0.6:
        return f"{aspect}{rng.choice(STRONG)}{word}", 2 * sign
    return f"{aspect}{rng.choice(LIGHT)}{word}", sign


def draft_review(rng: Random, goods: str) -> tuple[str, int]:
    """Make a review of two to four clauses, and the sum of their weights; a clause after 但是 counts double."""
    aspects = rng.sample(ASPECTS[goods], rng.choice((2, 3, 3, 4)))
    parts = []
    total = 0
    turn = rng.randrange(1, len(aspects)) if rng.random() < 0.3 else -1
    for place, aspect in enumerate(aspects):
        text, weight = clause(rng, aspect)
        total += 2 * weight if place == turn else weight
        parts.append(f"但是{text}" if place == turn else text)
    return f"{goods}：{rng.choice(FILLERS)}{'，'.join(parts)}{rng.choice(ENDINGS)}", total


def get_stars(total: int) -> int:
    """Convert a sum of weights to 0 (very bad) to 4 (very good)."""
    return 0 if total <= -4 else 1 if total <= -1 else 2 if total == 0 else 3 if total <= 3 else 4


def write_rated_review(rng: Random, label: int, goods: tuple[str, ...]) -> str:
    """Make a review with this rating (0-4)."""
    while True:
        text, total = draft_review(rng, rng.choice(goods))
        if get_stars(total) == label:
            return text


def polar(rng: Random, label: int, goods: tuple[str, ...]) -> str:
    """Make a review that is negative (0) or positive (1)."""
    while True:
        text, total = draft_review(rng, rng.choice(goods))
        if total != 0 and (total > 0) == bool(label):
            return text


AMAZON_GOODS = ("网店", "电脑", "图书", "餐厅")  # amazon
STAY = ("酒店", "电脑", "图书")  # chnsent: hotels, laptops and books, as in ChnSentiCorp
