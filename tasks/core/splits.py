"""Assignment of examples to splits: duplicates, leaks, the dev split and nested k-shot sets.

Every choice depends only on content hashes (and on the seed for k shots), not on the order of a file, so it is the
same for all methods and on all machines.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

from tasks.core.types import Example, UsageError

DEV_FRACTION = 0.1  # of the training examples
MAX_DEV_EXAMPLES = 1_000
TEST_FRACTION = 0.2  # of the only part, if a task has no test file
MAX_TEST_EXAMPLES = 5_000


def hash_rank(stream: str, uid: str) -> bytes:
    """Return a fixed pseudo-random sort key of an example; streams with different names are independent."""
    return sha256(f"{stream}:{uid}".encode()).digest()


def sort_by_hash_rank(examples: Iterable[Example], stream: str) -> list[Example]:
    """Sort examples by their pseudo-random rank in a stream."""
    return sorted(examples, key=lambda example: hash_rank(stream, example.uid))


def deduplicate(
    examples: Iterable[Example], merge_duplicates: Callable[[list[Example]], Example | None]
) -> tuple[list[Example], Counter]:
    """Return one example per uid in hash order, and the number of removed examples by reason.

    `merge_duplicates` makes one example of several with the same uid, or None if their answers conflict.
    """
    examples_by_uid: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        examples_by_uid[example.uid].append(example)
    unique: list[Example] = []
    removed: Counter[str] = Counter()
    for group in examples_by_uid.values():
        merged = merge_duplicates(group) if len(group) > 1 else group[0]
        if merged is None:
            removed["conflicting label"] += len(group)
            continue
        unique.append(merged)
        removed["duplicate" if len({example.answers for example in group}) == 1 else "merged"] += len(group) - 1
    return sort_by_hash_rank(unique, "pool"), +removed


def get_group_id(example: Example) -> str:
    """Return the id of the group that must stay in one split: sentence or document, else the example itself."""
    return example.group_id or example.uid


def remove_overlap(train: list[Example], test: list[Example]) -> list[Example]:
    """Return the examples of `train` that share neither uid nor group with an example of `test`."""
    test_groups = {get_group_id(example) for example in test}
    uids = {example.uid for example in test}
    return [example for example in train if get_group_id(example) not in test_groups and example.uid not in uids]


def split_off(
    examples: list[Example], fraction: float, max_examples: int, stream: str, get_label: Callable[[Example], str]
) -> tuple[list[Example], list[Example]]:
    """Split off a fraction of at most `max_examples`, stratified by label and in whole groups.

    Returns (remaining examples, split-off examples), both in their original order.
    """
    quota = allocate_quotas(Counter(map(get_label, examples)), min(max_examples, round(fraction * len(examples))))
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[get_group_id(example)].append(example)
    chosen: set[str] = set()
    num_left = min(max_examples, sum(quota.values()))
    for group_id in sorted(groups, key=lambda group_id: hash_rank(stream, group_id)):
        group = groups[group_id]
        first = min(group, key=lambda example: hash_rank(stream, example.uid))
        if quota[get_label(first)] <= 0 or len(group) > num_left:
            continue
        chosen.add(group_id)
        num_left -= len(group)
        quota.subtract(map(get_label, group))
    remaining = [example for example in examples if get_group_id(example) not in chosen]
    split_off_examples = [example for example in examples if get_group_id(example) in chosen]
    return remaining, split_off_examples


def allocate_quotas(counts: Counter, total: int) -> Counter:
    """Allocate `total` in proportion to `counts` by the largest remainder method; ties are broken by label."""
    num_examples = sum(counts.values())
    if not num_examples:
        return Counter()
    exact = {label: total * count / num_examples for label, count in counts.items()}
    quota = Counter({label: int(value) for label, value in exact.items()})
    left = total - sum(quota.values())
    for label in sorted(exact, key=lambda label: (int(exact[label]) - exact[label], label))[:left]:
        quota[label] += 1
    return quota


def sample_shots(examples: list[Example], shots: int, seed: int, get_label: Callable[[Example], str]) -> list[Example]:
    """Return the first `shots` examples of every label in the order of the seed.

    The sets of one seed are nested: its 4 shots are among its 16 shots.
    """
    left: dict[str, int] = defaultdict(lambda: shots)
    chosen = []
    for example in sort_by_hash_rank(examples, f"shots:{seed}"):
        if left[get_label(example)] > 0:
            left[get_label(example)] -= 1
            chosen.append(example)
    return chosen


def choose_train_and_test(raw_parts: Iterable[str]) -> tuple[str, str]:
    """Return the parts that serve as (train, test); the same part twice if the test set is split off from it.

    >>> [choose_train_and_test(parts) for parts in (["train", "dev", "test"], ["train", "dev"], ["test"])]
    [('train', 'test'), ('train', 'dev'), ('test', 'test')]
    """
    available = set(raw_parts)
    test = next(part for part in ("test", "dev", "train") if part in available)
    train = next((part for part in ("train", "dev") if part in available - {test}), test)
    return train, test


def get_main_text(example: Example) -> str:
    """Return the truncatable text of an example without white space, for comparison between tasks."""
    return "".join(example.prompt[slice(*example.truncatable_span)].split())


def find_leaks(train_examples: Iterable[Example], test_examples: Iterable[Example]) -> list[tuple[Example, Example]]:
    """Return pairs (training example, test example) that share their main text.

    The main text of a sentence pair is the longer sentence. Traditional and Simplified characters do not match.
    """
    train_by_text: dict[str, Example] = {}
    for example in train_examples:
        train_by_text.setdefault(get_main_text(example), example)
    return [
        (train_by_text[text], example) for example in test_examples if (text := get_main_text(example)) in train_by_text
    ]


def make_no_examples_error(task_name: str, split: str, report: Mapping[str, Any], source_title: str) -> UsageError:
    """Return an error that says why a split is empty: records read, and records dropped by reason (`Task.report`)."""
    dropped: Counter[str] = sum(map(Counter, report["dropped"].values()), Counter())
    records = " and ".join(f"{count:,} {part}" for part, count in report["rows"].items())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()) or "too few, or all of one group"
    return UsageError(f"{task_name}: no {split} examples left of {records} records, {source_title} ({reasons})")
