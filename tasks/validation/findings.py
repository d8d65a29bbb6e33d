"""Input and result types of the loader checks."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.base import Task
from tasks.core.types import Example

PASSED = "passed"
WARNING = "warning"
FAILED = "failed"


class Finding(NamedTuple):
    """Result of one check: its name, status (PASSED, WARNING or FAILED) and one line of text."""

    check_name: str
    status: str
    message: str


class LoadedRecords(NamedTuple):
    """A task with all its examples and their locations before anything is removed, and the examples of its splits."""

    task: Task
    examples_by_part: dict[str, list[tuple[str, Example]]]  # raw part -> (location, example)
    location_by_uid: dict[str, str]  # uid -> file and line of the first occurrence
    dropped_locations: dict[tuple[str, str], list[str]]  # (raw part, reason) -> locations
    train_examples: list[Example]  # of train and dev
    test_examples: list[Example]

    def iter_located_examples(self) -> Iterator[tuple[str, Example]]:
        """Yield (location, example) of all parts."""
        for rows in self.examples_by_part.values():
            yield from rows


def make_finding(
    check_name: str, bad_locations: Sequence[str], problem: str, passed_message: str, failure_status: str = FAILED
) -> Finding:
    """Make a finding: `failure_status` with number and first location of the problem, or PASSED if there is none."""
    if not bad_locations:
        return Finding(check_name, PASSED, passed_message)
    return Finding(check_name, failure_status, f"{len(bad_locations):,} {problem}, first {bad_locations[0]}")


def get_truncatable_text(example: Example) -> str:
    """Return the truncatable text of an example, which is its main text."""
    return example.prompt[slice(*example.truncatable_span)]
