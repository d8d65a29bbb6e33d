"""Pairs of questions: paraphrases, or questions that differ in kind, act or thing.

Word overlap does not predict the label: a paraphrase may share few words, and a different question almost all.
"""

from random import Random

from tasks.synthetic.lexicon import ACTS, BANKING, EVERYDAY, MONEY, SAME

FRAMES = {
    "how": ("{q}{act}{thing}", "{thing}{q}{act}", "请问{thing}要{q}{act}"),
    "when": ("{q}{act}{thing}", "{thing}{q}{act}", "{act}{thing}是{q}"),
    "why": ("{q}要{act}{thing}", "{thing}{q}要{act}", "{q}让我{act}{thing}"),
    "can": ("{q}{act}{thing}", "{thing}{q}{act}", "我{q}{act}{thing}"),
    "cost": ("{act}{thing}{q}", "{thing}{act}{q}", "{act}一次{thing}{q}"),
    "where": ("{q}{act}{thing}", "{thing}{q}{act}", "{act}{thing}{q}"),
}
ENDS = ("", "？", "呢", "啊", "，谢谢")


def say(rng: Random, kind: str, act: str, thing: str) -> str:
    """Sample a wording of (kind of question, act, thing)."""
    frame = rng.choice(FRAMES[kind])
    return frame.format(q=rng.choice(SAME[kind]), act=rng.choice(ACTS[act]), thing=thing) + rng.choice(ENDS)


def make_pair(rng: Random, same: int, things: tuple[str, ...], acts: tuple[str, ...] = tuple(ACTS)) -> tuple[str, str]:
    """Make two questions with the same meaning (1) or different meanings (0)."""
    kind = rng.choice(tuple(SAME))
    act = rng.choice(acts)
    thing = rng.choice(things)
    first = say(rng, kind, act, thing)
    if not same:
        parts = rng.sample(range(3), rng.choice((1, 1, 2, 3)))
        kind = rng.choice([k for k in SAME if k != kind]) if 0 in parts else kind
        act = rng.choice([a for a in acts if a != act]) if 1 in parts else act
        thing = rng.choice([t for t in things if t != thing]) if 2 in parts else thing
    second = say(rng, kind, act, thing)
    return (first, second) if first != second else make_pair(rng, same, things, acts)


OFFICE = tuple(ACTS)[:10]
HOME = tuple(ACTS)[8:]
DOMAINS = {"afqmc": (MONEY, OFFICE), "bq": (BANKING, OFFICE), "lcqmc": (EVERYDAY, HOME)}
