"""What a check of a loader works on, and what it says."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.base import Task
from tasks.example import Example

PASSED = "passed"
WARNING = "warning"
FAILED = "failed"


class Finding(NamedTuple):
    """What came of one check."""

    check: str
    state: str
    said: str


class Seen(NamedTuple):
    """A task that was read: every example with its place, before anything was removed, and what is left of them."""

    task: Task
    read: dict[str, list[tuple[str, Example]]]  # by part
    places: dict[str, str]  # uid -> file and line where it came first
    left_out: dict[tuple[str, str], list[str]]  # (part, reason) -> places
    train: list[Example]  # and dev
    test: list[Example]

    def every(self) -> Iterator[tuple[str, Example]]:
        for rows in self.read.values():
            yield from rows


def finding(check: str, bad: Sequence[str], said: str, fine: str, state: str = FAILED) -> Finding:
    """One line: `bad` are the places where it is so, first to last."""
    return Finding(check, state, f"{len(bad):,} {said}, first {bad[0]}") if bad else Finding(check, PASSED, fine)


def shown(example: Example) -> str:
    """The text that is this example's own."""
    return example.prompt[slice(*example.field)]
