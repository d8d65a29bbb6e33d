"""Computes the numbers of the page: from the leaderboard and its significance tests, and from each result file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from benchmark.analysis import seed_variance
from benchmark.analysis.intervals import MeanEstimate, to_percent
from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow, get_estimate
from benchmark.analysis.shot_curves import find_crossings
from benchmark.analysis.significance import LeaderboardSignificance
from benchmark.analysis.statistics import find_rank_cliques
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE
from benchmark.grid.planner import get_task_role
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import TrainingRecord

MAX_CURVE_POINTS = 60  # points of one learning curve
MAX_CURVES = 1200  # learning curves in the page; those of the first seeds are kept
WIDE_HALF_WIDTH = 0.2  # half widths of a task's interval above this are reported
RISING_DEV_GAIN = 0.02  # mean dev gain at the last evaluation; above this, training may have ended too early
OVERHEAD_PHASES = ("load", "tokenise", "save", "rest")


class CellFacts(NamedTuple):
    """Facts about all cells, collected in one pass over the result files."""

    curves: list[dict[str, Any]]  # see `build_curve_entry`
    cells: list[list[Any]]  # see `build_cell_entry`
    num_omitted_curves: int  # cells whose curve is left out because of MAX_CURVES
    # (method, shots) -> gain of the dev score at the last evaluation, one per cell
    final_dev_gains: dict[tuple[str, int | str], list[float]]
    environment: dict[str, Any]  # of the newest cell
    commits: list[str]
    devices: list[str]
    date_range: tuple[str, str] | None  # first and last day


def round_optional(value: float | None, digits: int = 2) -> float | None:
    """Round a value; None stays None."""
    return None if value is None else round(value, digits)


# -------------------------------------------------------------------- numbers of a selection of tasks


def build_score_record(row: LeaderboardRow, name: str, significance: LeaderboardSignificance) -> list[Any] | None:
    """Build [mean, half width, seeds, difference, its half width, corrected p, tie letters, flag]; None if no score.

    Scores, differences and half widths are x 100.
    """
    estimate = get_estimate(row, name)
    if estimate is None:
        return None
    standing = significance.entries[row.method, row.shots, name]
    difference = standing.difference
    half_width = difference.compute_half_width() if difference else None
    return [
        to_percent(estimate.mean),
        None if estimate.half_width is None else to_percent(estimate.half_width),
        estimate.num_seeds,
        to_percent(difference.mean) if difference else None,
        None if half_width is None else to_percent(half_width),
        round_optional(standing.corrected_p_value, 5),
        standing.tie_letters,
        standing.unranked_reason,
    ]


def build_score_records(
    leaderboard: Leaderboard, significance: LeaderboardSignificance
) -> dict[str, dict[str, dict[str, list]]]:
    """Shots -> selection of tasks, or task -> method -> score record."""
    names = dict.fromkeys((*leaderboard.task_groups, *leaderboard.metrics))
    records: dict = {}
    for row in leaderboard.rows:
        for name in names:
            if record := build_score_record(row, name, significance):
                records.setdefault(str(row.shots), {}).setdefault(name, {})[row.method] = record
    return records


def describe_wide_interval(row: LeaderboardRow, max_half_width: float = WIDE_HALF_WIDTH) -> str:
    """Describe the task with the widest interval above `max_half_width`; an empty string if there is none."""
    wide = {
        task: estimate.half_width
        for task, estimate in row.task_scores.items()
        if estimate and estimate.half_width and estimate.half_width > max_half_width
    }
    if not wide:
        return ""
    task = max(wide, key=wide.get)
    more = f", and {len(wide) - 1} more" if len(wide) > 1 else ""
    return f"wide interval over seeds: ±{100 * wide[task]:.0f} on {task}{more}"


def list_cautions(row: LeaderboardRow, final_dev_gains: Mapping[tuple[str, int | str], Sequence[float]]) -> list[str]:
    """List the cautions about a row beside its flag: wide intervals, a rising dev score, missing cells."""
    cautions = []
    wide_interval = describe_wide_interval(row)
    if wide_interval:
        cautions.append(wide_interval)
    gains = final_dev_gains.get((row.method, row.shots), ())
    if gains and fmean(gains) > RISING_DEV_GAIN:
        cautions.append(f"dev +{100 * fmean(gains):.1f} at the last evaluation: more steps may help")
    if row.num_done < row.num_due:
        cautions.append(f"{row.num_due - row.num_done} of {row.num_due} cells missing")
    return cautions


# -------------------------------------------------------------------- costs, ranks, curves over shots


def build_cost_entry(
    row: LeaderboardRow, phase_seconds: Mapping[tuple[str, int | str], Mapping[str, float]]
) -> dict[str, Any]:
    """Build the costs of a row: parameters, seconds per cell (own, amortised, standalone, by phase), peak bytes."""
    amortised = row.seconds_per_cell if row.amortised_seconds is None else row.amortised_seconds
    source_share = 0.0
    if row.amortised_seconds is not None and row.seconds_per_cell is not None:
        source_share = max(0.0, row.amortised_seconds - row.seconds_per_cell)
    phases = {**phase_seconds.get((row.method, row.shots), {}), "sources' share": source_share}
    return {
        "trained": round_optional(row.trained_parameters, 0),
        "seconds": round_optional(row.seconds_per_cell),
        "amortised": round_optional(amortised),
        "whole": round_optional(row.standalone_seconds),
        "bytes": row.peak_bytes,
        "done": row.num_done,
        "due": row.num_due,
        "phases": {name: round_optional(value, 3) for name, value in phases.items() if value},
    }


def average_phase_seconds(done_results: Iterable[CellResult]) -> dict[tuple[str, int | str], dict[str, float]]:
    """(method, shots) -> phase -> mean seconds over its cells."""
    seconds_by_row: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in done_results:
        spent = result.get_costs().seconds_by_phase
        phases = {name: spent.get(name, 0.0) for name in ("train", "dev", "test")}
        phases["start and end"] = sum(spent.get(name, 0.0) for name in OVERHEAD_PHASES)
        for phase, seconds in phases.items():
            seconds_by_row[result.cell.method, result.cell.shots][phase].append(seconds)
    return {key: {phase: fmean(values) for phase, values in row.items()} for key, row in seconds_by_row.items()}


def build_rank_diagrams(significance: LeaderboardSignificance) -> dict[str, dict[str, dict[str, Any]]]:
    """Shots -> selection -> critical-difference diagram: methods by rank, bars over groups that do not differ."""
    diagrams: dict = {}
    for (shots, name), (names, ranks) in significance.average_ranks.items():
        diagrams.setdefault(str(shots), {})[name] = {
            "methods": names,
            "mean": [round(rank, 3) for rank in ranks.mean_ranks],
            "gap": round(ranks.critical_difference, 3),
            "p": ranks.p_value,
            "tasks": ranks.num_tasks,
            "bars": find_rank_cliques(ranks),
        }
    return diagrams


def build_crossings(leaderboard: Leaderboard, significance: LeaderboardSignificance) -> dict[str, list[list[Any]]]:
    """Selection or task -> list of [method, method, *Crossing] where the shot curves of two trained methods cross."""
    rows = {(row.method, row.shots): row for row in leaderboard.rows if not row.is_control}
    shots = list(dict.fromkeys(row.shots for row in leaderboard.rows))
    crossings: dict[str, list[list[Any]]] = {}
    for name in dict.fromkeys((*leaderboard.task_groups, *leaderboard.metrics)):
        tasks = leaderboard.task_groups.get(name, name)
        for a, b in combinations(dict.fromkeys(method for method, _ in rows), 2):
            if can_cross([(get_estimate(rows[a, k], name), get_estimate(rows[b, k], name)) for k in shots]):
                differences = {
                    k: significance.paired_scores.compute_difference((a, (k,)), (b, (k,)), tasks) for k in shots
                }
                crossings.setdefault(name, []).extend([a, b, *crossing] for crossing in find_crossings(differences))
    return {name: entries for name, entries in crossings.items() if entries}


def can_cross(estimate_pairs: Iterable[tuple[MeanEstimate | None, MeanEstimate | None]]) -> bool:
    """Return whether two curves may cross, by their means. Cheap; saves most of the paired comparisons.

    Means over different numbers of seeds are not comparable, so such curves always may cross.
    """
    complete_pairs = [(a, b) for a, b in estimate_pairs if a and b]
    signs = {a.mean > b.mean for a, b in complete_pairs if a.mean != b.mean}
    return len(signs) > 1 or any(a.num_seeds != b.num_seeds for a, b in complete_pairs)


def build_variance_rows(
    planned_cells: Iterable[Any], results: Iterable[CellResult]
) -> list[tuple[str, int | str, str, list[float]]]:
    """Build (method, shots, stream, [standard deviation, low, high] x 100) where the runs isolate random streams."""
    rows = []
    for (method, shots), tasks in seed_variance.group_scores_by_seeds(planned_cells, results).items():
        components = seed_variance.decompose_variance(tasks)
        if not set(components) - {seed_variance.ALL_STREAMS}:
            continue
        for name, component in components.items():
            deviation = [100 * value for value in component.compute_standard_deviation()]
            rows.append((method, shots, seed_variance.STREAM_TITLES[name], deviation))
    return rows


# -------------------------------------------------------------------- cells


def collect_cell_facts(results: Sequence[CellResult]) -> CellFacts:
    """Read each result file once and collect what the index does not contain, e.g. learning curves."""
    facts = CellFacts([], [], 0, {}, {}, [], [], None)
    commits: dict = {}
    devices: dict = {}
    days = []
    num_omitted = 0
    for result in sorted(results, key=lambda result: (str(result.cell.seed), result.times.finished)):
        cell = result.cell
        environment = result.details.environment
        if environment:
            commits[environment.commit] = devices[environment.device] = None
            facts.environment.update(vars(environment))
        days.append(result.times.finished[:10])
        facts.cells.append(build_cell_entry(result))
        training = result.details.training
        if not training or not training.loss:
            continue
        if cell.stage == TARGET_STAGE and len(training.dev) > 1 and not training.stopped_step:
            gain = training.dev[-1].score - training.dev[-2].score
            facts.final_dev_gains.setdefault((cell.method, cell.shots), []).append(gain)
        if len(facts.curves) < MAX_CURVES:
            facts.curves.append(build_curve_entry(result, training))
        else:
            num_omitted += 1
    return facts._replace(
        num_omitted_curves=num_omitted,
        commits=[commit[:10] for commit in commits if commit],
        devices=[device for device in devices if device],
        date_range=(min(days), max(days)) if days else None,
    )


def build_cell_entry(result: CellResult) -> list[Any]:
    """Build [method, task, shots, seed, stage, state, test score x 100, seconds, identity, reason of failure]."""
    value = result.test_score
    reason = result.error.reason if result.error else ""
    return [*result.cell, result.state, round_optional(None if value is None else 100 * value),
            round_optional(result.times.seconds, 1), result.identity[:16], reason]  # fmt: skip


def build_curve_entry(result: CellResult, training: TrainingRecord) -> dict[str, Any]:
    """Build the learning curves of a cell: at most MAX_CURVE_POINTS [step, loss], and all [step, dev score x 100]."""
    stride = max(1, -(-len(training.loss) // MAX_CURVE_POINTS))
    loss = [[step, round(value, 3)] for step, value in training.loss[stride - 1 :: stride]]
    dev = [[step, round(100 * value, 1)] for step, value, *_ in training.dev]
    cell = result.cell
    return {"m": cell.method, "t": cell.task, "k": str(cell.shots), "s": cell.seed, "g": cell.stage,
            "loss": loss, "dev": dev}  # fmt: skip


def build_task_entries(profile: Profile, leaderboard: Leaderboard) -> dict[str, dict[str, Any]]:
    """Task -> role, family, form, metric and licence."""
    return {
        name: {"role": get_task_role(profile, name)}
        | {key: getattr(specs.get_task_spec(name), key) for key in ("family", "form", "metric", "licence")}
        for name in leaderboard.metrics
    }


def build_method_entries(profile: Profile) -> dict[str, dict[str, Any]]:
    """Method -> what it trains, its paper, and whether it is a control, seed-independent, or uses source stages."""
    entries = {}
    for name in profile.methods:
        spec = specs.get_method_spec(name)
        entries[name] = {
            "what": spec.trained_part,
            "paper": spec.paper,
            "control": not spec.uses_gradient_descent,
            "fixed": spec.is_seed_independent,
            "sources": spec.learns_from_sources and spec.uses_gradient_descent,
        }
    return entries
