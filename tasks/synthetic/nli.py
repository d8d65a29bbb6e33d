"""Pairs of premise and hypothesis: entailment, contradiction, or neutral (additional information)."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from tasks.synthetic.lexicon import CITIES, COLORS, DEEDS, JOBS, KINDS, NUMBERS, PEOPLE, TIMES

Tell = Callable[[Random, Mapping[str, str], set[str]], str]


class World(NamedTuple):
    """Vocabulary and sentence pattern of one language."""

    who: tuple[Sequence[str], ...]  # names, then other subjects; 60% of the sentences have a name
    parts: Mapping[str, Sequence[str]]  # segment of a sentence -> its values; `deed` and `thing` are in every sentence
    denied: tuple[str, ...]  # segments whose values exclude each other
    kinds: Mapping[str, Sequence[str]]  # kind -> its members
    deeds: Mapping[str, tuple[str, str]]  # deed -> (synonym, opposite)
    tell: Tell  # makes a sentence of who, deed, thing and the optional segments that are kept

    @property
    def extras(self) -> set[str]:
        """Names of the optional segments."""
        return self.parts.keys() - {"deed", "thing"}


def tell(rng: Random, parts: Mapping[str, str], keep: set[str]) -> str:
    """Make a Chinese sentence with the optional segments in `keep`."""
    time = parts["time"] if "time" in keep else ""
    place = f"在{parts['place']}" if "place" in keep else ""
    count = parts["count"] if "count" in keep else ""
    color = parts["color"] + "的" if "color" in keep else ""
    start = f"{time}{parts['who']}" if rng.random() < 0.5 else f"{parts['who']}{time}"
    return f"{start}{place}{parts['deed']}{count}{color}{parts['thing']}。"


CHINESE = World(
    (PEOPLE, JOBS),
    {
        "time": TIMES, "place": CITIES, "deed": tuple(DEEDS), "count": tuple(f"{number}件" for number in NUMBERS),
        "color": COLORS, "thing": tuple(thing for members in KINDS.values() for thing in members),
    },
    ("time", "place", "color"), KINDS, DEEDS, tell,
)  # fmt: skip


def scene(rng: Random, world: World) -> dict[str, str]:
    """Sample a value of each segment."""
    who = rng.choice(world.who[0] if rng.random() < 0.6 else world.who[-1])
    return {"who": who} | {part: rng.choice(values) for part, values in world.parts.items()}


def kind_of(thing: str, world: World) -> str:
    """Return the kind that a thing belongs to."""
    return next(kind for kind, members in world.kinds.items() if thing in members)


def follows(rng: Random, parts: dict[str, str], world: World) -> dict[str, str]:
    """Replace the deed by a synonym and the thing by its kind, each with probability 0.6."""
    parts = dict(parts)
    if rng.random() < 0.6:
        parts["thing"] = kind_of(parts["thing"], world)
    if rng.random() < 0.6:
        parts["deed"] = world.deeds[parts["deed"]][0]
    return parts


def denies(rng: Random, parts: dict[str, str], kept: set[str], world: World) -> dict[str, str]:
    """Replace the deed by its opposite, or the value of another segment that both sentences have."""
    part = rng.choice(["deed", "deed", *sorted(kept & set(world.denied))])
    if part == "deed":
        return parts | {"deed": world.deeds[parts["deed"]][1]}
    return parts | {part: rng.choice([value for value in world.parts[part] if value != parts[part]])}


def make_pair(rng: Random, label: str, world: World = CHINESE) -> tuple[str, str]:
    """Make (premise, hypothesis) with the label entailment, neutral or contradiction."""
    parts = scene(rng, world)
    extras = world.extras
    known = set(rng.sample(sorted(extras), 3))
    kept = set(rng.sample(sorted(known), rng.choice((1, 2))))
    premise = world.tell(rng, parts, known)
    if label == "contradiction":
        changed = denies(rng, parts, kept, world)
        return premise, world.tell(rng, changed, kept)
    if label == "entailment":
        return premise, world.tell(rng, follows(rng, parts, world), kept)
    if rng.random() < 0.5:  # neutral: a detail that is not in the premise ...
        return premise, world.tell(rng, follows(rng, parts, world), kept | (extras - known))
    general = parts | {"thing": kind_of(parts["thing"], world)}  # ... or a member of the kind in the premise
    return world.tell(rng, general, known), world.tell(rng, parts, kept)
