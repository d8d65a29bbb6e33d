"""docs/data-licences.md speaks of every task, and of none that is not there."""

import re
from fnmatch import fnmatch
from pathlib import Path

import tasks

PAGE = Path(__file__).parents[2] / "docs" / "data-licences.md"


def test_every_task_has_one_row_that_says_what_is_known_of_its_licence():
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in PAGE.read_text().splitlines()
            if re.match(r"\| [a-z0-9_*]+ \|", line)][1:]  # fmt: skip
    assert {len(row) for row in rows} == {5}
    assert all(cell for row in rows for cell in row)
    for name in tasks.TASK_NAMES:
        assert sum(fnmatch(name, row[0]) for row in rows) == 1, name
    assert all(any(fnmatch(name, row[0]) for name in tasks.TASK_NAMES) for row in rows)
