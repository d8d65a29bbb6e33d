"""Paired comparison of methods by example and seed, from the stored predictions."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.analysis.leaderboard import select_newest_results
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
from benchmark.grid.cells import Cell
from benchmark.results.cell_result import CellResult

Variant = tuple[str, tuple[int | str, ...]]  # a method at a number of shots, or averaged over several


class CellScores(NamedTuple):
    """Per-example scores of one cell on the test set."""

    examples_hash: str  # hash of the ordered examples; only cells with equal hashes are paired
    group_ids: np.ndarray  # [n] group (document) of each example
    values: np.ndarray  # [n] scores


class PairedScores:
    """Per-example scores of a grid's cells, read from the prediction files on first use and cached."""

    def __init__(self, profile: Profile, results: Sequence[CellResult]) -> None:
        self.profile = profile
        self.unusable_cells: dict[str, str] = {}  # cell key -> reason why it cannot be compared
        self.results_by_cell = select_newest_results(results)
        self.get_cell_scores = cache(self._load_cell_scores)
        self.get_task_contribution = cache(self._compute_task_contribution)  # the differences are too large to cache

    def _load_cell_scores(self, method: str, task: str, shots: int | str, seed: int) -> CellScores | None:
        result = self.results_by_cell.get(Cell(method, task, shots, seed))
        if result is None:
            return None
        scores, reason = load_cell_scores(self.profile.results_folder, result)
        if reason:
            self.unusable_cells[result.key] = reason
        return scores

    def _subtract_on_task(self, a: Variant, b: Variant, task: str) -> tuple[tuple[int, ...], np.ndarray] | None:
        """(common seeds, a - b [seeds, groups]) on one task, or None; seeds is (-1,) if both are seed-independent."""
        sides = [
            {seed: scores for seed in self.get_seeds(variant) if (scores := self.get_scores(variant, task, seed))}
            for variant in (a, b)
        ]
        if not all(sides) or len({scores.examples_hash for side in sides for scores in side.values()}) > 1:
            return None
        varying = [side for side in sides if -1 not in side]
        seeds: tuple[int, ...] = (-1,)
        if varying:
            seeds = tuple(seed for seed in self.profile.seeds if all(seed in side for side in varying))
        if not seeds:
            return None
        values = [np.stack([(side.get(seed) or side[-1]).values for seed in seeds]) for side in sides]
        return seeds, aggregate_by_group(values[0] - values[1], next(iter(sides[0].values())).group_ids)

    def _compute_task_contribution(
        self, a: Variant, b: Variant, task: str
    ) -> tuple[tuple[int, ...], TaskContribution] | None:
        seeds_and_differences = self._subtract_on_task(a, b, task)
        if seeds_and_differences is None:
            return None
        seeds, differences = seeds_and_differences
        return seeds, compute_task_contribution(differences)

    def get_seeds(self, variant: Variant) -> tuple[int, ...]:
        """The profile's seeds, or (-1,) for a seed-independent method."""
        return (-1,) if specs.get_method_spec(variant[0]).is_seed_independent else self.profile.seeds

    def get_scores(self, variant: Variant, task: str, seed: int) -> CellScores | None:
        """Scores of one seed, averaged over the variant's shots; None if a cell is missing."""
        method, shots = variant
        if seed < 0:  # seed-independent: a single cell
            cells = [self.get_cell_scores(method, task, 0, 0)]
        else:
            cells = [self.get_cell_scores(method, task, k, seed) for k in shots]
        if None in cells or len({scores.examples_hash for scores in cells}) > 1:
            return None
        return cells[0]._replace(values=np.mean([scores.values for scores in cells], axis=0))

    def compute_difference(self, a: Variant, b: Variant, tasks: Sequence[str] | str) -> PairedDifference | None:
        """Paired difference a - b in the mean over tasks, or None if a cell is missing.

        A single task, given by its name, is compared on the seeds that both have; several need all seeds.
        """
        is_single_task = isinstance(tasks, str)
        task_names = (tasks,) if is_single_task else tasks
        contributions = [self.get_task_contribution(a, b, task) for task in task_names]
        if not contributions or None in contributions:
            return None
        (seeds, *other_seeds) = dict.fromkeys(seeds for seeds, _ in contributions)
        if other_seeds or not (is_single_task or seeds in ((-1,), self.profile.seeds)):
            return None
        return combine_tasks([contribution for _, contribution in contributions], is_seed_independent=seeds == (-1,))

    def compute_bootstrap_interval(self, a: Variant, b: Variant, tasks: Sequence[str]) -> tuple[float, float]:
        """Bootstrap interval of a - b in the mean over tasks; every task must have a difference."""
        return compute_bootstrap_interval([self._subtract_on_task(a, b, task)[1] for task in tasks])

    def resample_differences(
        self, variants: Sequence[Variant], base_variant: Variant, tasks: Sequence[str]
    ) -> np.ndarray:
        """Bootstrap means [resamples, variants] of each variant minus the base; variants share the resamples.

        Every variant must have a difference to the base on every task.
        """
        return resample_means(
            [
                np.stack([self._subtract_on_task(variant, base_variant, task)[1] for variant in variants])
                for task in tasks
            ]
        )


def load_cell_scores(results_folder: Path, result: CellResult) -> tuple[CellScores | None, str]:
    """Read the per-example scores of a cell: (scores, "") or (None, reason).

    They are rejected if the file changed or if the cell's score is not their mean.
    """
    import pyarrow
    import pyarrow.parquet

    predictions = result.predictions
    if predictions is None:
        return None, "no predictions"
    try:
        data = (results_folder / predictions.path).read_bytes()
    except FileNotFoundError:
        return None, "prediction file missing"
    if sha256(data).hexdigest() != predictions.sha256:
        return None, "prediction file changed since scoring"
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    uids, groups, prompt_hashes = (table[name].to_pylist() for name in ("uid", "group", "asked"))
    values = table["score"].to_numpy()
    if abs(values.mean() - result.test_score) > 1e-6:
        return None, "metric is not a mean over examples"
    group_ids = np.array([group or uid for group, uid in zip(groups, uids, strict=True)])
    return CellScores(sha256("".join(prompt_hashes).encode()).hexdigest(), group_ids, values), ""
