"""Leaderboard: means and intervals over seeds, averages over tasks, costs. An average with a missing cell is None."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import NamedTuple

from benchmark.analysis.intervals import MeanEstimate, estimate_mean
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import Cell, get_shots_sort_key
from benchmark.grid.planner import get_task_role, supports_task
from benchmark.results.cell_result import CellResult

AVERAGE_NAMES = ("choice tasks", "source tasks", "target tasks")


class LeaderboardRow(NamedTuple):
    """One method at one number of shots. Missing scores are None, and so is every average over them."""

    method: str
    shots: int | str
    is_control: bool  # baseline without gradient training
    is_seed_independent: bool  # same score for all shots and seeds, hence in every table
    num_planned_seeds: int
    task_scores: dict[str, MeanEstimate | None]
    averages: dict[str, MeanEstimate | None]
    zero_step_averages: dict[str, MeanEstimate | None]  # same averages, after source but before target training
    trained_parameters: float | None  # mean over cells
    seconds_per_cell: float | None  # mean over cells, without dependencies
    amortised_seconds: float | None  # mean over cells, with the cell's share of its dependencies
    standalone_seconds: float | None  # mean over cells, with all dependencies in full
    peak_bytes: float | None  # largest peak memory of a cell
    num_done: int  # finished cells
    num_due: int  # planned cells

    @property
    def primary_average(self) -> MeanEstimate | None:
        """The first average, which determines the order of rows."""
        return next(iter(self.averages.values()))


class Leaderboard(NamedTuple):
    """All rows of a grid, with the metric of each task and the task groups that are averaged."""

    profile: Profile
    rows: list[LeaderboardRow]
    metrics: dict[str, str]  # task -> primary metric
    task_groups: dict[str, tuple[str, ...]]  # average -> its tasks in this profile

    def get_rows(self, shots: int | str) -> list[LeaderboardRow]:
        """Rows at one number of shots, baselines first."""
        return sorted((row for row in self.rows if row.shots == shots), key=lambda row: not row.is_control)


def build_leaderboard(
    profile: Profile,
    results: Iterable[CellResult],
    extra_task_groups: Mapping[str, tuple[str, ...]] | None = None,
) -> Leaderboard:
    """Build the leaderboard of a profile from its results; `extra_task_groups` are averaged too."""
    results = list(results)
    results_by_cell = select_newest_results(results)
    facts = {name: specs.get_task_spec(name) for name in profile.tasks}
    groups = {
        AVERAGE_NAMES[0]: tuple(name for name, fact in facts.items() if fact.form == "choice"),
        AVERAGE_NAMES[1]: tuple(name for name in facts if get_task_role(profile, name) == "source"),
        AVERAGE_NAMES[2]: tuple(name for name in facts if get_task_role(profile, name) == "target"),
    }
    groups = {name: members for name, members in groups.items() if members} | dict(extra_task_groups or {})
    metrics = {name: fact.metric for name, fact in facts.items()}
    seconds_by_identity = compute_seconds_with_dependencies(results)
    rows = [
        build_row(profile, method, shots, results_by_cell, metrics, groups, seconds_by_identity)
        for shots in sorted(profile.shots, key=get_shots_sort_key)
        for method in profile.methods
    ]
    return Leaderboard(profile, rows, metrics, groups)


def build_row(
    profile: Profile,
    method: str,
    shots: int | str,
    results_by_cell: Mapping[Cell, CellResult],
    metrics: Mapping[str, str],
    task_groups: Mapping[str, Sequence[str]],
    seconds_by_identity: Mapping[str, tuple[float, float]],
) -> LeaderboardRow:
    """Build the leaderboard row of one method at one number of shots."""
    facts = specs.get_method_spec(method)
    cell_shots = shots
    seeds = profile.seeds
    if facts.is_seed_independent:  # one cell for all shots and seeds
        cell_shots = 0
        seeds = (0,)
    supported = [task for task in profile.tasks if supports_task(facts, task)]
    planned = {
        (task, seed): results_by_cell.get(Cell(method, task, cell_shots, seed)) for task in supported for seed in seeds
    }
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    zero_step_scores: dict[str, dict[int, float]] = defaultdict(dict)
    for (task, seed), result in planned.items():
        if result:
            cell_metrics = result.get_metrics()
            scores[task][seed] = cell_metrics.test[metrics[task]]
            if cell_metrics.zero_step:
                zero_step_scores[task][seed] = cell_metrics.zero_step[metrics[task]]
    results = [result for result in planned.values() if result]
    costs = [result.get_costs() for result in results]
    seconds = [seconds_by_identity[result.identity] for result in results if result.identity in seconds_by_identity]
    amortised = fmean(shared for shared, _ in seconds) if seconds else None
    standalone = fmean(full for _, full in seconds) if seconds else None
    return LeaderboardRow(
        method,
        shots,
        not facts.uses_gradient_descent,
        facts.is_seed_independent,
        len(seeds),
        {task: estimate_mean(list(scores[task].values())) if scores[task] else None for task in profile.tasks},
        {name: average_over_tasks(members, seeds, scores) for name, members in task_groups.items()},
        {name: average_over_tasks(members, seeds, zero_step_scores) for name, members in task_groups.items()},
        fmean(cost.trained_parameters for cost in costs) if costs else None,
        fmean(result.times.seconds for result in results) if results else None,
        amortised,
        standalone,
        max(cost.peak_bytes for cost in costs) if costs else None,
        len(results),
        len(planned),
    )


def compute_seconds_with_dependencies(results: Iterable[CellResult]) -> dict[str, tuple[float, float]]:
    """Identity -> (amortised, standalone) seconds of a cell and, recursively, its dependencies.

    Amortised: the seconds of a dependency are divided by its number of finished dependants. Standalone: they count in
    full. Cells with a missing dependency are left out.
    """
    done = {result.identity: result for result in results if result.is_done}
    num_dependants = Counter(parent for result in done.values() for parent in result.dependencies)

    @cache
    def list_dependencies(identity: str) -> frozenset[str]:
        parents = done[identity].dependencies
        return frozenset(parents).union(*(list_dependencies(parent) for parent in parents if parent in done))

    @cache
    def amortise(identity: str) -> float:
        parents = done[identity].dependencies
        return done[identity].times.seconds + sum(amortise(parent) / num_dependants[parent] for parent in parents)

    return {
        identity: (
            amortise(identity),
            sum(done[needed].times.seconds for needed in {identity, *list_dependencies(identity)}),
        )
        for identity in done
        if list_dependencies(identity) <= done.keys()
    }


def average_over_tasks(
    task_names: Sequence[str], seeds: Sequence[int], scores_by_task: Mapping[str, Mapping[int, float]]
) -> MeanEstimate | None:
    """Mean over tasks per seed, then over seeds; None if a cell is missing."""
    if any(seed not in scores_by_task.get(task, {}) for task in task_names for seed in seeds):
        return None
    return estimate_mean([fmean(scores_by_task[task][seed] for task in task_names) for seed in seeds])


def get_estimate(row: LeaderboardRow, name: str) -> MeanEstimate | None:
    """The row's estimate on an average or a task."""
    return row.averages.get(name) or row.task_scores.get(name)


def select_newest_results(results: Iterable[CellResult]) -> dict[Cell, CellResult]:
    """Return cell -> newest finished target-stage result; `results` are ordered oldest first."""
    return {result.cell: result for result in results if result.is_done and result.is_target}


def sort_rows(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Sort by baselines first, then by the primary average, highest first; rows without one come last."""
    return sorted(
        rows, key=lambda row: (not row.is_control, -(row.primary_average.mean if row.primary_average else -1.0))
    )
