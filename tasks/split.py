"""Which example serves for what: duplicates, leaks, the dev cut and nested k-shot sets.

Every choice is a function of content hashes (and, for k shots, the seed), never of the order in a file, so it is the
same for every method and on every machine.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from hashlib import sha256

from tasks.example import Example

DEV_SHARE = 0.1  # of train
DEV_MOST = 1_000
TEST_SHARE = 0.2  # of the only part there is, where a task has no test file
TEST_MOST = 5_000


def rank(stream: str, uid: str) -> bytes:
    """A fixed pseudo-random place for an example in a stream named after what it decides."""
    return sha256(f"{stream}:{uid}".encode()).digest()


def ordered(examples: Iterable[Example], stream: str) -> list[Example]:
    return sorted(examples, key=lambda example: rank(stream, example.uid))


def deduplicate(
    examples: Iterable[Example], merge: Callable[[list[Example]], Example | None]
) -> tuple[list[Example], Counter]:
    """One example per text, in an order of its own, and what was removed.

    `merge` makes one of several examples of the same text, or None where their answers contradict each other.
    """
    same: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        same[example.uid].append(example)
    kept: list[Example] = []
    removed: Counter[str] = Counter()
    for group in same.values():
        one = merge(group) if len(group) > 1 else group[0]
        if one is None:
            removed["conflicting label"] += len(group)
            continue
        kept.append(one)
        removed["duplicate" if len({example.answers for example in group}) == 1 else "merged"] += len(group) - 1
    return ordered(kept, "pool"), +removed


def unit(example: Example) -> str:
    """What must not be torn apart: the sentence or document, else the example alone."""
    return example.group or example.uid


def without(train: list[Example], test: list[Example]) -> list[Example]:
    """Those of `train` that share neither text nor document with `test`."""
    units = {unit(example) for example in test}
    uids = {example.uid for example in test}
    return [example for example in train if unit(example) not in units and example.uid not in uids]


def cut(
    examples: list[Example], share: float, most: int, stream: str, label: Callable[[Example], str]
) -> tuple[list[Example], list[Example]]:
    """Split off a share, at most `most`, stratified by label and in whole units -> (rest, taken)."""
    quota = quotas(Counter(map(label, examples)), min(most, round(share * len(examples))))
    units: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        units[unit(example)].append(example)
    taken: set[str] = set()
    count = min(most, sum(quota.values()))
    for name in sorted(units, key=lambda name: rank(stream, name)):
        first = min(units[name], key=lambda example: rank(stream, example.uid))
        if quota[label(first)] <= 0 or len(units[name]) > count:
            continue
        taken.add(name)
        count -= len(units[name])
        quota.subtract(map(label, units[name]))
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        parts[unit(example) in taken].append(example)
    return parts


def quotas(counts: Counter, total: int) -> Counter:
    """`total` shared out in proportion to `counts`, by largest remainder; ties by label."""
    whole = sum(counts.values())
    if not whole:
        return Counter()
    exact = {label: total * count / whole for label, count in counts.items()}
    quota = Counter({label: int(value) for label, value in exact.items()})
    left = total - sum(quota.values())
    for label in sorted(exact, key=lambda label: (int(exact[label]) - exact[label], label))[:left]:
        quota[label] += 1
    return quota


def draw(examples: list[Example], shots: int, seed: int, label: Callable[[Example], str]) -> list[Example]:
    """The first `shots` of every label in the order of the seed: 4 shots are among the 16 of the same seed."""
    left: dict[str, int] = defaultdict(lambda: shots)
    chosen = []
    for example in ordered(examples, f"shots:{seed}"):
        if left[label(example)] > 0:
            left[label(example)] -= 1
            chosen.append(example)
    return chosen


def roles(parts: Iterable[str]) -> tuple[str, str]:
    """The parts that serve as (train, test). The same one twice means that the test set is cut from it.

    >>> roles(["train", "dev", "test"]), roles(["dev", "test"]), roles(["train", "dev"]), roles(["test"])
    (('train', 'test'), ('dev', 'test'), ('train', 'dev'), ('test', 'test'))
    """
    there = set(parts)
    test = next(part for part in ("test", "dev", "train") if part in there)
    train = next((part for part in ("train", "dev") if part in there - {test}), test)
    return train, test


def text(example: Example) -> str:
    """The item's main text, as it is compared between tasks: no white space."""
    return "".join(example.prompt[slice(*example.field)].split())


def leaks(sources: Iterable[Example], tests: Iterable[Example]) -> list[tuple[Example, Example]]:
    """Pairs (training example of a source, test example of a target) that share their main text.

    For sentence pairs the main text is the longer sentence. A Traditional text does not match its Simplified twin.
    """
    seen: dict[str, Example] = {}
    for example in sources:
        seen.setdefault(text(example), example)
    return [(seen[text(example)], example) for example in tests if text(example) in seen]
