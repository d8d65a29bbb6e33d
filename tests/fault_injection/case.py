"""One disturbed and resumed grid, held against the same grid undisturbed."""

import time
from pathlib import Path
from typing import NamedTuple

from tests.fault_injection.harness import Ground, build_tables, done


class Verdict(NamedTuple):
    """`lost`: cells that were done and had to be done again, or were not done in the end; `twice`: done twice."""

    tried: int
    lost: int
    twice: int
    wrong: str = ""  # what is not as it should be
    skipped: str = ""


class Undisturbed(NamedTuple):
    """The grid as it is when nothing happens."""

    tables: str
    cells: int
    seconds: float
    idle: float  # seconds of a run that has nothing to do
    folder: Path

    def left(self, folder: Path) -> float:
        """About how long a run takes that resumes this folder."""
        return self.idle + (self.seconds - self.idle) * (1 - len(done(folder)) / self.cells)


def undisturbed(ground: Ground, **options: object) -> Undisturbed:
    folder, begun = ground.folder(), time.monotonic()
    code = ground.run(folder, **options)
    if code:
        raise RuntimeError(f"the undisturbed grid ended with {code}:\n{ground.said()}")
    ended = time.monotonic()
    ground.run(folder, **options)
    return Undisturbed(build_tables(folder), len(done(folder)), ended - begun, time.monotonic() - ended, folder)


class Case:
    """One folder, disturbed and resumed, with what was done before each disturbance."""

    def __init__(self, ground: Ground, right: Undisturbed) -> None:
        self.ground, self.right, self.folder = ground, right, ground.folder()
        self.tried, self.wrong = 0, []
        self.kept: dict[str, str] = {}

    def expect(self, what: str, holds: bool) -> None:
        if not holds:
            self.wrong.append(what)

    def note(self) -> None:
        """Remember what is done: it must stay as it is."""
        self.kept |= done(self.folder)

    def resumed(self, *, repaired: int = 0, code: int = 0) -> Verdict:
        """Go on to the end. `repaired`: cells whose files were damaged on purpose, which are done again."""
        found = self.ground.run(self.folder)
        self.expect(f"exit code {found} on resuming", found == code)
        over = done(self.folder)
        lost = sum(over.get(name) != text for name, text in self.kept.items()) + max(0, self.right.cells - len(over))
        same = (self.folder / "report" / "leaderboard.csv").exists() and build_tables(self.folder) == self.right.tables
        self.expect("tables differ", same)
        left = [*(self.folder / "locks").glob("*.lock"), *self.folder.rglob(".*.json.*")]
        self.expect(f"left behind: {[path.name for path in left][:3]}", not left)
        twice = self.ground.twice(self.folder) - repaired
        return Verdict(self.tried, max(0, lost - repaired), max(0, twice), "; ".join(dict.fromkeys(self.wrong)))


def joined(verdicts: list[Verdict]) -> Verdict:
    sums = [sum(getattr(verdict, name) for verdict in verdicts) for name in ("tried", "lost", "twice")]
    return Verdict(*sums, "; ".join(dict.fromkeys(verdict.wrong for verdict in verdicts if verdict.wrong)))
