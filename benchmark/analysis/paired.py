"""Rows of a grid against each other, example by example and seed by seed, from the kept predictions."""

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmark.analysis.statistics import (
    PairedDifference,
    TaskContribution,
    aggregate_by_group,
    combine_tasks,
    compute_bootstrap_interval,
    compute_task_contribution,
    resample_means,
)
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE

Variant = tuple[str, tuple[int | str, ...]]  # a method at a number of shots, or at the mean over several


class CellScores(NamedTuple):
    """Of one cell, by test example."""

    examples_hash: str  # hash of the examples in their order: only equal ones are paired
    group_ids: np.ndarray
    values: np.ndarray


class PairedScores:
    """Scores by example of a grid's cells, read from the predictions when they are first asked for."""

    def __init__(self, profile: Profile, results: Sequence[Mapping[str, Any]]) -> None:
        self.profile = profile
        self.unusable_cells: dict[str, str] = {}  # cell -> why it cannot be compared
        self.results_by_cell = {
            tuple(result["cell"][name] for name in ("method", "task", "shots", "seed")): result
            for result in results  # oldest first: the newest counts
            if result["state"] == "done" and result["cell"]["stage"] == TARGET_STAGE
        }
        self.get_cell_scores, self.get_task_contribution = (
            cache(self._load_cell_scores),
            cache(self._compute_task_contribution),
        )  # a part is small, what it is made of is not

    def _load_cell_scores(self, method: str, task: str, shots: int | str, seed: int) -> CellScores | None:
        result = self.results_by_cell.get((method, task, shots, seed))
        if result is None:
            return None
        scores, why = load_cell_scores(self.profile.results_folder, result)
        if why:
            self.unusable_cells[result["key"]] = why
        return scores

    def _subtract_on_task(self, a: Variant, b: Variant, task: str) -> tuple[tuple[int, ...], np.ndarray] | None:
        """a - b on one task, [seeds, groups]; the seeds that both have, (-1,) where neither depends on one."""
        sides = [
            {seed: scores for seed in self.get_seeds(row) if (scores := self.get_scores(row, task, seed))}
            for row in (a, b)
        ]
        if not all(sides) or len({scores.examples_hash for side in sides for scores in side.values()}) > 1:
            return None
        varying = [side for side in sides if -1 not in side]
        seeds = (
            tuple(seed for seed in self.profile.seeds if all(seed in side for side in varying)) if varying else (-1,)
        )
        if not seeds:
            return None
        values = [np.stack([(side.get(seed) or side[-1]).values for seed in seeds]) for side in sides]
        return seeds, aggregate_by_group(values[0] - values[1], next(iter(sides[0].values())).group_ids)

    def _compute_task_contribution(
        self, a: Variant, b: Variant, task: str
    ) -> tuple[tuple[int, ...], TaskContribution] | None:
        found = self._subtract_on_task(a, b, task)
        return found and (found[0], compute_task_contribution(found[1]))

    def get_seeds(self, variant: Variant) -> tuple[int, ...]:
        return (-1,) if specs.get_method_spec(variant[0])["fixed"] else self.profile.seeds

    def get_scores(self, variant: Variant, task: str, seed: int) -> CellScores | None:
        """One seed's scores, the mean over the row's shots; nothing while one of them is missing."""
        method, shots = variant
        cells = (
            [self.get_cell_scores(method, task, 0, 0)]
            if seed < 0
            else [self.get_cell_scores(method, task, k, seed) for k in shots]
        )
        if None in cells or len({scores.examples_hash for scores in cells}) > 1:
            return None
        return cells[0]._replace(values=np.mean([scores.values for scores in cells], axis=0))

    def compute_difference(self, a: Variant, b: Variant, tasks: Sequence[str] | str) -> PairedDifference | None:
        """The mean of a - b over tasks, nothing while a cell is missing; of one by name: over the seeds there are."""
        alone = isinstance(tasks, str)
        found = [self.get_task_contribution(a, b, task) for task in ((tasks,) if alone else tasks)]
        if not found or None in found:
            return None
        (seeds, *other) = dict.fromkeys(seeds for seeds, _ in found)
        if other or not (alone or seeds in ((-1,), self.profile.seeds)):
            return None
        return combine_tasks([one for _, one in found], is_seed_independent=seeds == (-1,))

    def compute_bootstrap_interval(self, a: Variant, b: Variant, tasks: Sequence[str]) -> tuple[float, float]:
        """The second view of a difference that there is."""
        return compute_bootstrap_interval([self._subtract_on_task(a, b, task)[1] for task in tasks])

    def resample_differences(
        self, variants: Sequence[Variant], base_variant: Variant, tasks: Sequence[str]
    ) -> np.ndarray:
        """[draws, rows]: each row less the base in the same draws of seeds and examples; all differences are there."""
        return resample_means(
            [np.stack([self._subtract_on_task(row, base_variant, task)[1] for row in variants]) for task in tasks]
        )


def load_cell_scores(results_folder: Path, result: Mapping[str, Any]) -> tuple[CellScores | None, str]:
    """-> (the scores of a cell, or why there are none that its number is the mean of)."""
    import pyarrow
    import pyarrow.parquet

    try:
        data = (results_folder / result["predictions"]["file"]).read_bytes()
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
    return CellScores(sha256("".join(asked).encode()).hexdigest(), alone, values), ""
