"""Short passages of facts about several people, and questions about one of them; the others are distractors."""

from random import Random

from tasks.synthetic.lexicon import CITIES, HOBBIES, JOBS, PEOPLE, THINGS

FACTS = {  # kind of fact -> (values, statements, questions for the value, questions for the person)
    "home": (
        CITIES,
        ("{who}住在{what}", "{who}的家在{what}"),
        ("{who}住在哪里？", "{who}的家在哪里？"),
        ("谁住在{what}？",),
    ),
    "job": (
        JOBS,
        ("{who}是{what}", "{who}的工作是{what}"),
        ("{who}的工作是什么？", "{who}做什么工作？"),
        ("谁是{what}？",),
    ),
    "hobby": (
        HOBBIES,
        ("{who}喜欢{what}", "{who}的爱好是{what}"),
        ("{who}喜欢什么？", "{who}的爱好是什么？"),
        ("谁喜欢{what}？",),
    ),
    "thing": (
        THINGS,
        ("{who}买了{what}", "{who}得到了{what}"),
        ("{who}买了什么？", "{who}得到了什么？"),
        ("谁买了{what}？",),
    ),
}


def make_passage(rng: Random, count: int = 3) -> tuple[list[str], list[tuple[str, str, tuple[str, ...]]]]:
    """Make (sentences, questions); a question is (text, answer, all values of its kind in the passage)."""
    people = rng.sample(PEOPLE, count)
    kinds = rng.sample(sorted(FACTS), 2)
    values = {kind: rng.sample(FACTS[kind][0], count) for kind in kinds}
    sentences = []
    questions = []
    for place, who in enumerate(people):
        told = [rng.choice(FACTS[kind][1]).format(who=who, what=values[kind][place]) for kind in kinds]
        rng.shuffle(told)
        sentences.append(f"{told[0]}，{told[1]}。")
        for kind in kinds:
            what = values[kind][place]
            questions.append((rng.choice(FACTS[kind][2]).format(who=who), what, tuple(values[kind])))
            questions.append((rng.choice(FACTS[kind][3]).format(what=what), who, tuple(people)))
    rng.shuffle(sentences)
    return sentences, questions


def choices(rng: Random, answer: str, values: tuple[str, ...], pool: tuple[str, ...], count: int) -> list[str]:
    """Make `count` options: the answer, and wrong values from the passage, supplemented from `pool`."""
    wrong = [value for value in values if value != answer]
    wrong += rng.sample([word for word in pool if word not in values], max(0, count - 1 - len(wrong)))
    options = [answer, *rng.sample(wrong, count - 1)]
    rng.shuffle(options)
    return options


def pool(answer: str) -> tuple[str, ...]:
    """Return all values of the answer's kind."""
    return next(values for values in (PEOPLE, *(kind[0] for kind in FACTS.values())) if answer in values)
