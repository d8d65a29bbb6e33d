"""Which example serves for what: duplicates, leaks, the dev cut and nested k-shot sets.

Every choice is a function of content hashes (and, for k shots, the seed), never of the order in a file, so it is the
same for every method and on every machine.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

from tasks.core.types import Example, UsageError

if TYPE_CHECKING:
    from tasks.base import Task

DEV_FRACTION = 0.1  # of train
MAX_DEV_EXAMPLES = 1_000
TEST_FRACTION = 0.2  # of the only part there is, where a task has no test file
MAX_TEST_EXAMPLES = 5_000


def hash_rank(stream: str, uid: str) -> bytes:
    """A fixed pseudo-random place for an example in a stream named after what it decides."""
    return sha256(f"{stream}:{uid}".encode()).digest()


def sort_by_hash_rank(examples: Iterable[Example], stream: str) -> list[Example]:
    return sorted(examples, key=lambda example: hash_rank(stream, example.uid))


def deduplicate(
    examples: Iterable[Example], merge_duplicates: Callable[[list[Example]], Example | None]
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
        one = merge_duplicates(group) if len(group) > 1 else group[0]
        if one is None:
            removed["conflicting label"] += len(group)
            continue
        kept.append(one)
        removed["duplicate" if len({example.answers for example in group}) == 1 else "merged"] += len(group) - 1
    return sort_by_hash_rank(kept, "pool"), +removed


def get_group_id(example: Example) -> str:
    """What must not be torn apart: the sentence or document, else the example alone."""
    return example.group_id or example.uid


def remove_overlap(train: list[Example], test: list[Example]) -> list[Example]:
    """Those of `train` that share neither text nor document with `test`."""
    units = {get_group_id(example) for example in test}
    uids = {example.uid for example in test}
    return [example for example in train if get_group_id(example) not in units and example.uid not in uids]


def split_off(
    examples: list[Example], fraction: float, max_examples: int, stream: str, get_label: Callable[[Example], str]
) -> tuple[list[Example], list[Example]]:
    """Split off a share, at most `most`, stratified by label and in whole units -> (rest, taken)."""
    quota = allocate_quotas(Counter(map(get_label, examples)), min(max_examples, round(fraction * len(examples))))
    units: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        units[get_group_id(example)].append(example)
    taken: set[str] = set()
    count = min(max_examples, sum(quota.values()))
    for name in sorted(units, key=lambda name: hash_rank(stream, name)):
        first = min(units[name], key=lambda example: hash_rank(stream, example.uid))
        if quota[get_label(first)] <= 0 or len(units[name]) > count:
            continue
        taken.add(name)
        count -= len(units[name])
        quota.subtract(map(get_label, units[name]))
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        parts[get_group_id(example) in taken].append(example)
    return parts


def allocate_quotas(counts: Counter, total: int) -> Counter:
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


def sample_shots(examples: list[Example], shots: int, seed: int, get_label: Callable[[Example], str]) -> list[Example]:
    """The first `shots` of every label in the order of the seed: 4 shots are among the 16 of the same seed."""
    left: dict[str, int] = defaultdict(lambda: shots)
    chosen = []
    for example in sort_by_hash_rank(examples, f"shots:{seed}"):
        if left[get_label(example)] > 0:
            left[get_label(example)] -= 1
            chosen.append(example)
    return chosen


def choose_train_and_test(raw_parts: Iterable[str]) -> tuple[str, str]:
    """The parts that serve as (train, test). The same one twice means that the test set is cut from it.

    >>> roles(["train", "dev", "test"]), roles(["dev", "test"]), roles(["train", "dev"]), roles(["test"])
    (('train', 'test'), ('dev', 'test'), ('train', 'dev'), ('test', 'test'))
    """
    there = set(raw_parts)
    test = next(part for part in ("test", "dev", "train") if part in there)
    train = next((part for part in ("train", "dev") if part in there - {test}), test)
    return train, test


def get_main_text(example: Example) -> str:
    """The item's main text, as it is compared between tasks: no white space."""
    return "".join(example.prompt[slice(*example.truncatable_span)].split())


def find_leaks(train_examples: Iterable[Example], test_examples: Iterable[Example]) -> list[tuple[Example, Example]]:
    """Pairs (training example of a source, test example of a target) that share their main text.

    For sentence pairs the main text is the longer sentence. A Traditional text does not match its Simplified twin.
    """
    seen: dict[str, Example] = {}
    for example in train_examples:
        seen.setdefault(get_main_text(example), example)
    return [(seen[get_main_text(example)], example) for example in test_examples if get_main_text(example) in seen]


def make_no_examples_error(task: "Task", split: str) -> UsageError:
    """Why nothing is left of a split."""
    lost: Counter[str] = sum(map(Counter, task.report["dropped"].values()), Counter())
    read = " and ".join(f"{count:,} {part}" for part, count in task.report["rows"].items())
    why = ", ".join(f"{count:,} {reason}" for reason, count in lost.items()) or "too few, or all of one group"
    return UsageError(f"{task.name}: no {split} examples left of {read} records, {task.record_source.title} ({why})")
