"""What a check of a loader works on, and what it says."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.base import Task
from tasks.core.types import Example

PASSED = "passed"
WARNING = "warning"
FAILED = "failed"


class Finding(NamedTuple):
    """What came of one check."""

    check_name: str
    status: str
    message: str


class LoadedRecords(NamedTuple):
    """A task that was read: every example with its place, before anything was removed, and what is left of them."""

    task: Task
    examples_by_part: dict[str, list[tuple[str, Example]]]  # by part
    location_by_uid: dict[str, str]  # uid -> file and line where it came first
    dropped_locations: dict[tuple[str, str], list[str]]  # (part, reason) -> places
    train_examples: list[Example]  # and dev
    test_examples: list[Example]

    def iter_located_examples(self) -> Iterator[tuple[str, Example]]:
        for rows in self.examples_by_part.values():
            yield from rows


def make_finding(
    check_name: str, bad_locations: Sequence[str], problem: str, passed_message: str, failure_status: str = FAILED
) -> Finding:
    """One line: `bad` are the places where it is so, first to last."""
    return (
        Finding(check_name, failure_status, f"{len(bad_locations):,} {problem}, first {bad_locations[0]}")
        if bad_locations
        else Finding(check_name, PASSED, passed_message)
    )


def get_truncatable_text(example: Example) -> str:
    """The text that is this example's own."""
    return example.prompt[slice(*example.truncatable_span)]
