"""From results to numbers: means and intervals over seeds, averages over tasks, costs. No average has a hole."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Any, NamedTuple

from benchmark.analysis.intervals import MeanEstimate, estimate_mean
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE, get_shots_sort_key
from benchmark.grid.planner import get_task_role, supports_task

AVERAGE_NAMES = ("choice tasks", "source tasks", "target tasks")


class LeaderboardRow(NamedTuple):
    """One method at one number of shots. Cells that are missing are None, and so is every average over them."""

    method: str
    shots: int | str
    is_control: bool  # nothing trains by steps
    is_seed_independent: bool  # the same number for any shots and seed, so the same in every table
    num_planned_seeds: int  # that are due
    task_scores: dict[str, MeanEstimate | None]
    averages: dict[str, MeanEstimate | None]
    zero_step_averages: dict[
        str, MeanEstimate | None
    ]  # the same averages before the first step on the target, after a source stage
    trained_parameters: float | None  # parameters, mean over cells
    seconds_per_cell: float | None  # per cell, what it rests on not counted
    amortised_seconds: float | None  # per cell, with its share of what it rests on, where others rest on that too
    standalone_seconds: float | None  # per cell, as if it were the only one: all that it rests on counted in full
    peak_bytes: float | None  # peak memory, the largest
    num_done: int
    num_due: int

    @property
    def primary_average(self) -> MeanEstimate | None:
        """The average that decides the order."""
        return next(iter(self.averages.values()))


class Leaderboard(NamedTuple):
    """All lines of a grid."""

    profile: Profile
    rows: list[LeaderboardRow]
    metrics: dict[str, str]  # task -> primary metric
    task_groups: dict[str, tuple[str, ...]]  # average -> its tasks in this profile

    def get_rows(self, shots: int | str) -> list[LeaderboardRow]:
        """Lines of one table, controls first."""
        return sorted((line for line in self.rows if line.shots == shots), key=lambda line: not line.is_control)


def build_leaderboard(
    profile: Profile,
    results: Iterable[Mapping[str, Any]],
    extra_task_groups: Mapping[str, tuple[str, ...]] | None = None,
) -> Leaderboard:
    """The table of a profile from the results that belong to it. `more`: averages beside the usual ones."""
    results = list(results)
    found: dict[tuple, Mapping[str, Any]] = {}
    for result in results:  # oldest first: the newest counts
        cell = result["cell"]
        if result["state"] == "done" and cell["stage"] == TARGET_STAGE:
            found[cell["method"], cell["task"], cell["shots"], cell["seed"]] = result
    facts = {name: specs.get_task_spec(name) for name in profile.tasks}
    groups = {
        AVERAGE_NAMES[0]: tuple(name for name, fact in facts.items() if fact["form"] == "choice"),
        AVERAGE_NAMES[1]: tuple(name for name in facts if get_task_role(profile, name) == "source"),
        AVERAGE_NAMES[2]: tuple(name for name in facts if get_task_role(profile, name) == "target"),
    }
    groups = {name: members for name, members in groups.items() if members} | dict(extra_task_groups or {})
    metrics = {name: fact["metric"] for name, fact in facts.items()}
    costs = compute_seconds_with_dependencies(results)
    lines = [
        build_row(profile, method, shots, found, metrics, groups, costs)
        for shots in sorted(profile.shots, key=get_shots_sort_key)
        for method in profile.methods
    ]
    return Leaderboard(profile, lines, metrics, groups)


def build_row(profile: Profile, method: str, shots: int | str, results_by_cell: Mapping[tuple, Mapping], metrics: Mapping[str, str],
         task_groups: Mapping[str, Sequence[str]], seconds_by_identity: Mapping[str, tuple[float, float]]) -> LeaderboardRow:  # fmt: skip
    """One method's figures."""
    facts = specs.get_method_spec(method)
    at, seeds = (0, (0,)) if facts["fixed"] else (shots, profile.seeds)
    able = [task for task in profile.tasks if supports_task(facts, task)]
    own = {(task, seed): results_by_cell.get((method, task, at, seed)) for task in able for seed in seeds}
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    before: dict[str, dict[int, float]] = defaultdict(dict)
    for (task, seed), result in own.items():
        if result:
            scores[task][seed] = result["metrics"]["test"][metrics[task]]
            if "before" in result["metrics"]:
                before[task][seed] = result["metrics"]["before"][metrics[task]]
    results = [result for result in own.values() if result]
    costs = [result["cost"] for result in results]
    known = [seconds_by_identity[result["identity"]] for result in results if result["identity"] in seconds_by_identity]
    amortised, whole = (fmean(part) for part in zip(*known, strict=True)) if known else (None, None)
    return LeaderboardRow(
        method,
        shots,
        not facts["trains"],
        facts["fixed"],
        len(seeds),
        {task: estimate_mean(list(scores[task].values())) if scores[task] else None for task in profile.tasks},
        {name: average_over_tasks(members, seeds, scores) for name, members in task_groups.items()},
        {name: average_over_tasks(members, seeds, before) for name, members in task_groups.items()},
        fmean(cost["trained_parameters"] for cost in costs) if costs else None,
        fmean(result["times"]["seconds"] for result in results) if results else None,
        amortised,
        whole,
        max(cost["peak_bytes"] for cost in costs) if costs else None,
        len(results),
        len(own),
    )


def compute_seconds_with_dependencies(results: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Identity -> (amortised, full) seconds: a cell's own and, over and over, those of what it rests on.

    Amortised: divided by how many finished cells rest on it. Cells whose parents are not all at hand are left out.
    """
    done = {result["identity"]: result for result in results if result["state"] == "done"}
    heirs = Counter(parent for result in done.values() for parent in result["parents"])

    @cache
    def above(identity: str) -> frozenset[str]:
        parents = done[identity]["parents"]
        return frozenset(parents).union(*(above(parent) for parent in parents if parent in done))

    @cache
    def shared(identity: str) -> float:
        parents = done[identity]["parents"]
        return done[identity]["times"]["seconds"] + sum(shared(parent) / heirs[parent] for parent in parents)

    return {
        identity: (shared(identity), sum(done[one]["times"]["seconds"] for one in {identity, *above(identity)}))
        for identity in done
        if above(identity) <= done.keys()
    }


def average_over_tasks(
    task_names: Sequence[str], seeds: Sequence[int], scores_by_task: Mapping[str, Mapping[int, float]]
) -> MeanEstimate | None:
    """The mean over tasks of each seed, then over seeds; nothing while one cell is missing."""
    if any(seed not in scores_by_task.get(task, {}) for task in task_names for seed in seeds):
        return None
    return estimate_mean([fmean(scores_by_task[task][seed] for task in task_names) for seed in seeds])


def get_estimate(row: LeaderboardRow, name: str) -> MeanEstimate | None:
    return row.averages.get(name) or row.task_scores.get(name)


def select_newest_results(results: Iterable[Mapping[str, Any]]) -> dict[tuple, Mapping[str, Any]]:
    """(method, task, shots, seed) -> the done result of the table."""
    return {
        tuple(result["cell"][name] for name in ("method", "task", "shots", "seed")): result
        for result in results  # oldest first
        if result["state"] == "done" and result["cell"]["stage"] == TARGET_STAGE
    }


def sort_rows(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Controls, then by the first average, those without one last. For reading: the intervals say what it is worth."""
    return sorted(
        rows, key=lambda line: (not line.is_control, -(line.primary_average.mean if line.primary_average else -1.0))
    )
