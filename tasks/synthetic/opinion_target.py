"""Sentences that judge one entity and mention another; the target is the judged entity, in any position."""

from random import Random

from tasks.synthetic.lexicon import ASPECTS, BAD, CITIES, GOOD, SPOTS, STRONG, TIMES, WORKS

FRAMES = (
    "{time}从{other}过来，{target}的{aspect}{much}{word}。", "比起{other}，{target}的{aspect}{much}{word}。",
    "{target}的{aspect}{much}{word}，离{other}不远。", "看过{other}之后，觉得{target}{much}{word}。",
    "{other}人人都知道，不过{target}{much}{word}。", "{target}{much}{word}，值得一说，{other}还没去。",
    "朋友提到{other}，我只想说{target}的{aspect}{much}{word}。", "先说{other}再说{target}，后者{aspect}{much}{word}。",
)  # fmt: skip
TRAVEL = tuple(city + spot for city in CITIES for spot in SPOTS)
READING = WORKS + tuple(a + b for a in WORKS[:10] for b in ("传", "记", "之歌"))


def make_opinion(rng: Random, names: tuple[str, ...], aspects: tuple[str, ...]) -> tuple[str, str]:
    """Make (text, target)."""
    target, other = rng.sample(names, 2)
    while target in other or other in target:
        target, other = rng.sample(names, 2)
    text = rng.choice(FRAMES).format(
        time=rng.choice(TIMES), other=other, target=target, aspect=rng.choice(aspects), much=rng.choice(STRONG), word=rng.choice(GOOD + BAD)
    )  # fmt: skip
    return text, target


DOMAINS = {"cote_mfw": (TRAVEL, ASPECTS["景点"]), "cote_bd": (READING + SPOTS, ASPECTS["图书"])}
