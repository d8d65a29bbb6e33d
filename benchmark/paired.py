"""Rows of a grid against each other, example by example and seed by seed, from the kept predictions."""

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmark import catalogue
from benchmark.grid import TARGET
from benchmark.profile import Profile
from benchmark.stats import Difference, Part, bootstrap, clustered, combined, part, resampled

Row = tuple[str, tuple[int | str, ...]]  # a method at a number of shots, or at the mean over several


class Scores(NamedTuple):
    """Of one cell, by test example."""

    asked: str  # hash of the examples in their order: only equal ones are paired
    groups: np.ndarray
    values: np.ndarray


class Kept:
    """Scores by example of a grid's cells, read from the predictions when they are first asked for."""

    def __init__(self, profile: Profile, results: Sequence[Mapping[str, Any]]) -> None:
        self.profile = profile
        self.unusable: dict[str, str] = {}  # cell -> why it cannot be compared
        self.found = {
            tuple(result["cell"][name] for name in ("method", "task", "shots", "seed")): result
            for result in results  # oldest first: the newest counts
            if result["state"] == "done" and result["cell"]["stage"] == TARGET
        }
        self.cell, self.part = cache(self._cell), cache(self._part)  # a part is small, what it is made of is not

    def _cell(self, method: str, task: str, shots: int | str, seed: int) -> Scores | None:
        result = self.found.get((method, task, shots, seed))
        if result is None:
            return None
        scores, why = read(self.profile.folder, result)
        if why:
            self.unusable[result["key"]] = why
        return scores

    def _on_task(self, a: Row, b: Row, task: str) -> tuple[tuple[int, ...], np.ndarray] | None:
        """a - b on one task, [seeds, groups]; the seeds that both have, (-1,) where neither depends on one."""
        sides = [{seed: scores for seed in self.seeds(row) if (scores := self.at(row, task, seed))} for row in (a, b)]
        if not all(sides) or len({scores.asked for side in sides for scores in side.values()}) > 1:
            return None
        varying = [side for side in sides if -1 not in side]
        seeds = (
            tuple(seed for seed in self.profile.seeds if all(seed in side for side in varying)) if varying else (-1,)
        )
        if not seeds:
            return None
        values = [np.stack([(side.get(seed) or side[-1]).values for seed in seeds]) for side in sides]
        return seeds, clustered(values[0] - values[1], next(iter(sides[0].values())).groups)

    def _part(self, a: Row, b: Row, task: str) -> tuple[tuple[int, ...], Part] | None:
        found = self._on_task(a, b, task)
        return found and (found[0], part(found[1]))

    def seeds(self, row: Row) -> tuple[int, ...]:
        return (-1,) if catalogue.method(row[0])["fixed"] else self.profile.seeds

    def at(self, row: Row, task: str, seed: int) -> Scores | None:
        """One seed's scores, the mean over the row's shots; nothing while one of them is missing."""
        method, shots = row
        cells = [self.cell(method, task, 0, 0)] if seed < 0 else [self.cell(method, task, k, seed) for k in shots]
        if None in cells or len({scores.asked for scores in cells}) > 1:
            return None
        return cells[0]._replace(values=np.mean([scores.values for scores in cells], axis=0))

    def difference(self, a: Row, b: Row, tasks: Sequence[str] | str) -> Difference | None:
        """The mean of a - b over tasks, nothing while a cell is missing; of one by name: over the seeds there are."""
        alone = isinstance(tasks, str)
        found = [self.part(a, b, task) for task in ((tasks,) if alone else tasks)]
        if not found or None in found:
            return None
        (seeds, *other) = dict.fromkeys(seeds for seeds, _ in found)
        if other or not (alone or seeds in ((-1,), self.profile.seeds)):
            return None
        return combined([one for _, one in found], seedless=seeds == (-1,))

    def bootstrap(self, a: Row, b: Row, tasks: Sequence[str]) -> tuple[float, float]:
        """The second view of a difference that there is."""
        return bootstrap([self._on_task(a, b, task)[1] for task in tasks])

    def resampled(self, rows: Sequence[Row], base: Row, tasks: Sequence[str]) -> np.ndarray:
        """[draws, rows]: each row less the base in the same draws of seeds and examples; all differences are there."""
        return resampled([np.stack([self._on_task(row, base, task)[1] for row in rows]) for task in tasks])


def read(folder: Path, result: Mapping[str, Any]) -> tuple[Scores | None, str]:
    """-> (the scores of a cell, or why there are none that its number is the mean of)."""
    import pyarrow
    import pyarrow.parquet

    try:
        data = (folder / result["predictions"]["file"]).read_bytes()
    except FileNotFoundError:
        return None, "their predictions are gone"
    if sha256(data).hexdigest() != result["predictions"]["sha256"]:
        return None, "their predictions are not those that were scored"
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    if not {"score", "group"} <= set(table.column_names):
        return None, "their predictions carry no score by example"
    uid, group, asked = (table[name].to_pylist() for name in ("uid", "group", "asked"))
    values = table["score"].to_numpy()
    if abs(values.mean() - result["metrics"]["test"][result["task"]["metric"]]) > 1e-6:
        return None, "their metric is no mean over examples"
    alone = np.array([own or other for own, other in zip(group, uid, strict=True)])
    return Scores(sha256("".join(asked).encode()).hexdigest(), alone, values), ""
