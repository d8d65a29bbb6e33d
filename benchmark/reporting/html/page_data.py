"""Computes the numbers of the page: from the leaderboard and its significance tests, and from each result file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from benchmark.analysis import seed_variance
from benchmark.analysis.intervals import MeanEstimate, to_percent
from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow, get_estimate
from benchmark.analysis.shot_curves import find_crossings
from benchmark.analysis.significance import LeaderboardSignificance
from benchmark.analysis.statistics import find_rank_cliques
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.grid.planner import get_task_role
from benchmark.reporting.html.page_records import (
    CellRecord,
    CostRecord,
    CrossingRecord,
    CurveRecord,
    MethodRecord,
    RankClique,
    RankDiagram,
    ScoreRecord,
    TaskRecord,
    VarianceRow,
)
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import TrainingRecord

MAX_CURVE_POINTS = 60  # points of one learning curve
MAX_CURVES = 1200  # learning curves in the page; those of the first seeds are kept
WIDE_HALF_WIDTH = 0.2  # half widths of a task's interval above this are reported
RISING_DEV_GAIN = 0.02  # mean dev gain at the last evaluation; above this, training may have ended too early
OVERHEAD_PHASES = ("load", "tokenise", "save", "rest")


@dataclass(frozen=True)
class CellFacts:
    """Facts about all cells, collected in one pass over the result files."""

    curves: list[CurveRecord]
    cells: list[CellRecord]
    num_omitted_curves: int  # cells whose curve is left out because of MAX_CURVES
    # (method, shots) -> gain of the dev score (0..1) at the last evaluation, one per cell
    final_dev_gains: dict[tuple[str, int | str], list[float]]
    packages: dict[str, str]  # library -> version, of the newest cell
    commits: list[str]
    devices: list[str]
    first_day: str  # on which a cell finished, as YYYY-MM-DD; empty without cells
    last_day: str


def round_optional(value: float | None, digits: int = 2) -> float | None:
    """Round a value; None stays None."""
    return None if value is None else round(value, digits)


# -------------------------------------------------------------------- numbers of a selection of tasks


def build_score_record(row: LeaderboardRow, name: str, significance: LeaderboardSignificance) -> ScoreRecord | None:
    """Build the score of a row on a task or task group; None if it has no score there."""
    estimate = get_estimate(row, name)
    if estimate is None:
        return None
    standing = significance.entries[row.method, row.shots, name]
    difference = standing.difference
    half_width = difference.compute_half_width() if difference else None
    return ScoreRecord(
        mean=to_percent(estimate.mean),
        half_width=None if estimate.half_width is None else to_percent(estimate.half_width),
        num_seeds=estimate.num_seeds,
        difference=to_percent(difference.mean) if difference else None,
        difference_half_width=None if half_width is None else to_percent(half_width),
        corrected_p_value=round_optional(standing.corrected_p_value, 5),
        tie_letters=standing.tie_letters,
        unranked_reason=standing.unranked_reason,
    )


def build_score_records(
    leaderboard: Leaderboard, significance: LeaderboardSignificance
) -> dict[str, dict[str, dict[str, ScoreRecord]]]:
    """Shots -> task group or task -> method -> score."""
    names = dict.fromkeys((*leaderboard.task_groups, *leaderboard.metrics))
    records: dict[str, dict[str, dict[str, ScoreRecord]]] = {}
    for row in leaderboard.rows:
        for name in names:
            record = build_score_record(row, name, significance)
            if record:
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
    task = max(wide, key=lambda name: wide[name])
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


def build_cost_record(
    row: LeaderboardRow, phase_seconds: Mapping[tuple[str, int | str], Mapping[str, float]]
) -> CostRecord:
    """Build the costs of a row. `phase_seconds`: see `average_phase_seconds`."""
    amortised = row.seconds_per_cell if row.amortised_seconds is None else row.amortised_seconds
    source_share = 0.0
    if row.amortised_seconds is not None and row.seconds_per_cell is not None:
        source_share = max(0.0, row.amortised_seconds - row.seconds_per_cell)
    phases = {**phase_seconds.get((row.method, row.shots), {}), "sources' share": source_share}
    return CostRecord(
        trained_parameters=round_optional(row.trained_parameters, 0),
        seconds_per_cell=round_optional(row.seconds_per_cell),
        amortised_seconds=round_optional(amortised),
        standalone_seconds=round_optional(row.standalone_seconds),
        peak_bytes=row.peak_bytes,
        num_done=row.num_done,
        num_due=row.num_due,
        phase_seconds={name: round(value, 3) for name, value in phases.items() if value},
    )


def average_phase_seconds(done_results: Iterable[CellResult]) -> dict[tuple[str, int | str], dict[str, float]]:
    """(method, shots) -> phase -> mean seconds over its cells."""
    seconds_by_row: dict[tuple[str, int | str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in done_results:
        spent = result.get_costs().seconds_by_phase
        phases = {name: spent.get(name, 0.0) for name in ("train", "dev", "test")}
        phases["start and end"] = sum(spent.get(name, 0.0) for name in OVERHEAD_PHASES)
        for phase, seconds in phases.items():
            seconds_by_row[result.cell.method, result.cell.shots][phase].append(seconds)
    return {key: {phase: fmean(values) for phase, values in row.items()} for key, row in seconds_by_row.items()}


def build_rank_diagrams(significance: LeaderboardSignificance) -> dict[str, dict[str, RankDiagram]]:
    """Shots -> task group -> critical-difference diagram."""
    diagrams: dict[str, dict[str, RankDiagram]] = {}
    for (shots, name), (methods, ranks) in significance.average_ranks.items():
        diagrams.setdefault(str(shots), {})[name] = RankDiagram(
            methods=methods,
            mean_ranks=[round(rank, 3) for rank in ranks.mean_ranks],
            critical_difference=round(ranks.critical_difference, 3),
            p_value=ranks.p_value,
            num_tasks=ranks.num_tasks,
            cliques=[RankClique(first, last) for first, last in find_rank_cliques(ranks)],
        )
    return diagrams


def build_crossings(leaderboard: Leaderboard, significance: LeaderboardSignificance) -> list[CrossingRecord]:
    """Find where the shot curves of two trained methods cross, on every task group and task."""
    rows = {(row.method, row.shots): row for row in leaderboard.rows if not row.is_control}
    shots = list(dict.fromkeys(row.shots for row in leaderboard.rows))
    crossings = []
    for name in dict.fromkeys((*leaderboard.task_groups, *leaderboard.metrics)):
        tasks = leaderboard.task_groups.get(name, name)
        for a, b in combinations(dict.fromkeys(method for method, _ in rows), 2):
            if can_cross([(get_estimate(rows[a, k], name), get_estimate(rows[b, k], name)) for k in shots]):
                differences = {
                    k: significance.paired_scores.compute_difference((a, (k,)), (b, (k,)), tasks) for k in shots
                }
                crossings += [CrossingRecord(name, a, b, *crossing) for crossing in find_crossings(differences)]
    return crossings


def can_cross(estimate_pairs: Iterable[tuple[MeanEstimate | None, MeanEstimate | None]]) -> bool:
    """Return whether two curves may cross, by their means. Cheap; saves most of the paired comparisons.

    Means over different numbers of seeds are not comparable, so such curves always may cross.
    """
    complete_pairs = [(a, b) for a, b in estimate_pairs if a and b]
    signs = {a.mean > b.mean for a, b in complete_pairs if a.mean != b.mean}
    return len(signs) > 1 or any(a.num_seeds != b.num_seeds for a, b in complete_pairs)


def build_variance_rows(planned_cells: Iterable[PlannedCell], results: Iterable[CellResult]) -> list[VarianceRow]:
    """Build the standard deviations of the rows whose runs isolate random streams."""
    rows = []
    for (method, shots), tasks in seed_variance.group_scores_by_seeds(planned_cells, results).items():
        components = seed_variance.decompose_variance(tasks)
        if not set(components) - {seed_variance.ALL_STREAMS}:
            continue
        for name, component in components.items():
            interval = [100 * value for value in component.compute_standard_deviation()]  # estimate, low, high
            rows.append(VarianceRow(method, shots, seed_variance.STREAM_TITLES[name], *interval))
    return rows


# -------------------------------------------------------------------- cells


def collect_cell_facts(results: Sequence[CellResult]) -> CellFacts:
    """Read each result file once and collect what the index does not contain, e.g. learning curves."""
    curves: list[CurveRecord] = []
    cells = []
    num_omitted_curves = 0
    final_dev_gains: dict[tuple[str, int | str], list[float]] = defaultdict(list)
    packages: dict[str, str] = {}
    commits = {}  # dicts instead of sets: ordered
    devices = {}
    days = []
    for result in sorted(results, key=lambda result: (str(result.cell.seed), result.times.finished)):
        cell = result.cell
        environment = result.details.environment
        if environment:
            commits[environment.commit] = devices[environment.device] = None
            packages = dict(environment.packages) or packages
        days.append(result.times.finished[:10])
        cells.append(build_cell_record(result))
        training = result.details.training
        if not training or not training.loss:
            continue
        if cell.stage == TARGET_STAGE and len(training.dev) > 1 and not training.stopped_step:
            gain = training.dev[-1].score - training.dev[-2].score
            final_dev_gains[cell.method, cell.shots].append(gain)
        if len(curves) < MAX_CURVES:
            curves.append(build_curve_record(result, training))
        else:
            num_omitted_curves += 1
    return CellFacts(
        curves=curves,
        cells=cells,
        num_omitted_curves=num_omitted_curves,
        final_dev_gains=dict(final_dev_gains),
        packages=packages,
        commits=[commit[:10] for commit in commits if commit],
        devices=[device for device in devices if device],
        first_day=min(days, default=""),
        last_day=max(days, default=""),
    )


def build_cell_record(result: CellResult) -> CellRecord:
    """Build the page's record of a cell from its result."""
    score = result.test_score
    return CellRecord(
        **result.cell._asdict(),
        state=result.state,
        score=None if score is None else round(100 * score, 2),
        seconds=round(result.times.seconds, 1),
        identity=result.identity[:16],
        failure_reason=result.error.reason if result.error else "",
    )


def build_curve_record(result: CellResult, training: TrainingRecord) -> CurveRecord:
    """Build the learning curves of a cell: at most MAX_CURVE_POINTS losses, and all dev scores."""
    stride = max(1, -(-len(training.loss) // MAX_CURVE_POINTS))
    loss_points = training.loss[stride - 1 :: stride]
    cell = result.cell
    return CurveRecord(
        method=cell.method,
        task=cell.task,
        shots=str(cell.shots),
        seed=cell.seed,
        stage=cell.stage,
        loss_steps=[step for step, _ in loss_points],
        losses=[round(loss, 3) for _, loss in loss_points],
        dev_steps=[step for step, *_ in training.dev],
        dev_scores=[round(100 * score, 1) for _, score, *_ in training.dev],
    )


def build_task_records(profile: Profile, leaderboard: Leaderboard) -> dict[str, TaskRecord]:
    """Build the facts about each task of the leaderboard."""
    records = {}
    for name in leaderboard.metrics:
        spec = specs.get_task_spec(name)
        records[name] = TaskRecord(get_task_role(profile, name), spec.family, spec.form, spec.metric, spec.licence)
    return records


def build_method_records(profile: Profile) -> dict[str, MethodRecord]:
    """Build the facts about each method of the profile."""
    records = {}
    for name in profile.methods:
        spec = specs.get_method_spec(name)
        records[name] = MethodRecord(
            trained_part=spec.trained_part,
            paper=spec.paper,
            is_control=not spec.uses_gradient_descent,
            is_seed_independent=spec.is_seed_independent,
            has_source_stages=spec.learns_from_sources and spec.uses_gradient_descent,
        )
    return records
