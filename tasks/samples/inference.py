"""Premise and hypothesis. Who, when, where, what was done to what; the hypothesis follows, contradicts, or adds."""

from random import Random

from tasks.samples.lexicon import CITIES, COLORS, DEEDS, JOBS, KINDS, NUMBERS, PEOPLE, TIMES

KIND_OF = {thing: kind for kind, members in KINDS.items() for thing in members}


def scene(rng: Random) -> dict[str, str]:
    """The parts of a statement."""
    who = rng.choice(PEOPLE) if rng.random() < 0.6 else rng.choice(JOBS)
    return {
        "time": rng.choice(TIMES), "who": who, "place": rng.choice(CITIES), "deed": rng.choice(tuple(DEEDS)),
        "count": rng.choice(NUMBERS) + "件", "color": rng.choice(COLORS), "thing": rng.choice(tuple(KIND_OF)),
    }  # fmt: skip


def tell(rng: Random, parts: dict[str, str], keep: set[str]) -> str:
    """The statement with who, deed and thing, and those of the other parts that are kept."""
    time = parts["time"] if "time" in keep else ""
    place = f"在{parts['place']}" if "place" in keep else ""
    count = parts["count"] if "count" in keep else ""
    color = parts["color"] + "的" if "color" in keep else ""
    start = f"{time}{parts['who']}" if rng.random() < 0.5 else f"{parts['who']}{time}"
    return f"{start}{place}{parts['deed']}{count}{color}{parts['thing']}。"


def follows(rng: Random, parts: dict[str, str]) -> dict[str, str]:
    """Other words, or a more general one."""
    parts = dict(parts)
    if rng.random() < 0.6:
        parts["thing"] = KIND_OF[parts["thing"]]
    if rng.random() < 0.6:
        parts["deed"] = DEEDS[parts["deed"]][0]
    return parts


def denies(rng: Random, parts: dict[str, str], kept: set[str]) -> dict[str, str]:
    """The opposite deed, or another value of a part that both sentences name."""
    options = {"time": TIMES, "place": CITIES, "color": COLORS}
    part = rng.choice(["deed", "deed", *sorted(kept & set(options))])
    if part == "deed":
        return parts | {"deed": DEEDS[parts["deed"]][1]}
    return parts | {part: rng.choice([value for value in options[part] if value != parts[part]])}


def pair(rng: Random, label: str) -> tuple[str, str]:
    """(premise, hypothesis) of entailment, neutral or contradiction."""
    parts, extras = scene(rng), {"time", "place", "count", "color"}
    known = set(rng.sample(sorted(extras), 3))
    kept = set(rng.sample(sorted(known), rng.choice((1, 2))))
    premise = tell(rng, parts, known)
    if label == "contradiction":
        changed = denies(rng, parts, kept)
        return premise, tell(rng, changed, kept)
    if label == "entailment":
        return premise, tell(rng, follows(rng, parts), kept)
    if rng.random() < 0.5:  # neutral: a detail the premise does not give ...
        return premise, tell(rng, follows(rng, parts), kept | (extras - known))
    general = parts | {"thing": KIND_OF[parts["thing"]]}  # ... or a special case of what it does give
    return tell(rng, general, known), tell(rng, parts, kept)
