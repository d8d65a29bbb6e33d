"""Sentences with two relations each, so that the label depends on the pair of words and not on a keyword."""

from random import Random

from tasks.synthetic.lexicon import BOTH_WAYS, COMPANIES, KINDS, LITERARY, ONE_WAY, PARTS, PEOPLE, PLACES, THINGS

OPENINGS = ("", "那一年，", "记得", "黄昏时分，", "听说", "后来")
NEWS = ("", "公告称，", "消息说，", "周一，", "近日")
SIDES = {  # label -> (kinds of head, kinds of tail)
    "Create": (PEOPLE, KINDS["书籍"]), "Use": (PEOPLE, KINDS["家具"] + KINDS["乐器"]), "Near": (PLACES, PLACES), "Social": (PEOPLE, PEOPLE),
    "Located": (PEOPLE, PLACES), "Ownership": (PEOPLE, THINGS), "General-Special": (tuple(KINDS), THINGS), "Family": (PEOPLE, PEOPLE),
    "Part-Whole": (PARTS, PLACES),
}  # fmt: skip


def fact(rng: Random, label: str, used: set[str]) -> tuple[str, str, str]:
    """Make (head, tail, clause) of a literary relation from words that are not in `used`, and add them to it."""
    heads, tails = SIDES[label]
    head = rng.choice([word for word in heads if word not in used])
    if label == "General-Special":
        tails = KINDS[head]
    tail = rng.choice([word for word in tails if word not in used and word != head])
    used |= {head, tail}
    return head, tail, rng.choice(LITERARY[label]).format(head, tail)


def make_literary_sentence(rng: Random, label: str) -> tuple[str, str, str]:
    """Make (head, tail, text); the pair of `unknown` has words of two different clauses."""
    used: set[str] = set()
    first = fact(rng, rng.choice(tuple(LITERARY)) if label == "unknown" else label, used)
    second = fact(rng, rng.choice(tuple(LITERARY)), used)
    clauses = [first[2], second[2]]
    rng.shuffle(clauses)
    text = f"{rng.choice(OPENINGS)}{clauses[0]}，{clauses[1]}。"
    if label == "unknown":
        return first[rng.randrange(2)], second[rng.randrange(2)], text
    return first[0], first[1], text


def make_company_sentence(rng: Random, label: str, companies: list[str]) -> tuple[str, str, str]:
    """Make (head, tail, clause) of a financial relation; removes two companies from the list."""
    head = companies.pop()
    tail = companies.pop()
    if label in BOTH_WAYS or label in ONE_WAY:
        return head, tail, rng.choice((BOTH_WAYS | ONE_WAY)[label]).format(head, tail)
    return head, tail, rng.choice(ONE_WAY[label.removeprefix("被")]).format(tail, head)


def financial(rng: Random, label: str) -> list[tuple[str, str, str, str]]:
    """Make the row (head, tail, label, text) and its mirrored row; every FinRE sentence has both."""
    companies = rng.sample(COMPANIES, 4)
    every = tuple(ONE_WAY) + tuple(BOTH_WAYS)
    head, tail, clause = make_company_sentence(rng, rng.choice(every) if label == "unknown" else label, companies)
    other_head, _, other = make_company_sentence(rng, rng.choice(every), companies)
    clauses = [clause, other]
    rng.shuffle(clauses)
    text = f"{rng.choice(NEWS)}{clauses[0]}，{clauses[1]}。"
    if label == "unknown":
        tail = other_head
    return [(head, tail, label, text), (tail, head, mirrored(label), text)]


def mirrored(label: str) -> str:
    """Return the label of (tail, head)."""
    if label in BOTH_WAYS or label == "unknown":
        return label
    return label.removeprefix("被") if label.startswith("被") else f"被{label}"
