"""What the page shows, as plain numbers: from the board and its standings, and cell by cell from the result files."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from benchmark.analysis import seed_variance
from benchmark.analysis.intervals import MeanEstimate, to_percent
from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow, get_estimate
from benchmark.analysis.shot_curves import find_crossings as crossed
from benchmark.analysis.significance import LeaderboardSignificance
from benchmark.analysis.statistics import find_rank_cliques
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE
from benchmark.grid.planner import get_task_role
from benchmark.results.files import read_result_file
from benchmark.results.index import IndexedResult

MAX_CURVE_POINTS = 60  # of a learning curve
MAX_CURVES = 1200  # cells whose learning curves the page carries: the first seeds'
WIDE_HALF_WIDTH = 0.2  # intervals of one task wider than this, each way, are pointed out
RISING_DEV_GAIN = 0.02  # a mean gain on dev at the last look of more than this: training ended early
OVERHEAD_PHASES = ("load", "tokenise", "save", "rest")


class CellFacts(NamedTuple):
    """Of the cells, read from their files once."""

    curves: list[dict[str, Any]]
    cells: list[list[Any]]
    num_omitted_curves: int  # cells without a curve here, because there are so many
    final_dev_gains: dict[
        tuple[str, int | str], list[float]
    ]  # (method, shots) -> what dev gained at the last look, by cell
    environment: dict[str, Any]  # of the newest
    commits: list[str]
    devices: list[str]
    date_range: tuple[str, str] | None  # first and last day


def round_optional(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


# -------------------------------------------------------------------- numbers of a selection of tasks


def build_score_record(row: LeaderboardRow, name: str, significance: LeaderboardSignificance) -> list[Any] | None:
    """[mean, half, seeds, difference, its half, p, letters, flag], x 100; nothing where there is no number."""
    figure = get_estimate(row, name)
    if figure is None:
        return None
    standing = significance.entries[row.method, row.shots, name]
    gap = standing.difference
    half = gap.compute_half_width() if gap else None
    return [
        to_percent(figure.mean),
        None if figure.half_width is None else to_percent(figure.half_width),
        figure.num_seeds,
        to_percent(gap.mean) if gap else None,
        None if half is None else to_percent(half),
        round_optional(standing.corrected_p_value, 5),
        standing.tie_letters,
        standing.unranked_reason,
    ]


def build_score_records(
    leaderboard: Leaderboard, significance: LeaderboardSignificance
) -> dict[str, dict[str, dict[str, list]]]:
    """shots -> selection or task -> method -> score."""
    names = dict.fromkeys((*leaderboard.task_groups, *leaderboard.metrics))
    found: dict = {}
    for line in leaderboard.rows:
        for name in names:
            if values := build_score_record(line, name, significance):
                found.setdefault(str(line.shots), {}).setdefault(name, {})[line.method] = values
    return found


def describe_wide_interval(row: LeaderboardRow, max_half_width: float = WIDE_HALF_WIDTH) -> str:
    """A task whose interval is far wider than a reader would guess."""
    wide = {
        task: figure.half_width
        for task, figure in row.task_scores.items()
        if figure and figure.half_width and figure.half_width > max_half_width
    }
    if not wide:
        return ""
    task = max(wide, key=wide.get)
    more = f", and {len(wide) - 1} more" if len(wide) > 1 else ""
    return f"seeds far apart: ±{100 * wide[task]:.0f} on {task}{more}"


def list_cautions(row: LeaderboardRow, final_dev_gains: Mapping[tuple[str, int | str], Sequence[float]]) -> list[str]:
    """What to keep in mind about a row beside its flag."""
    found = [text] if (text := describe_wide_interval(row)) else []
    gains = final_dev_gains.get((row.method, row.shots), ())
    if gains and fmean(gains) > RISING_DEV_GAIN:
        found.append(f"dev +{100 * fmean(gains):.1f} at the last look: more steps may help")
    if row.num_done < row.num_due:
        found.append(f"{row.num_due - row.num_done} of {row.num_due} cells missing")
    return found


# -------------------------------------------------------------------- costs, ranks, curves over shots


def build_cost_entry(
    row: LeaderboardRow, phase_seconds: Mapping[tuple[str, int | str], Mapping[str, float]]
) -> dict[str, Any]:
    share = (
        max(0.0, row.amortised_seconds - row.seconds_per_cell)
        if row.amortised_seconds is not None and row.seconds_per_cell is not None
        else 0.0
    )
    own = dict(phase_seconds.get((row.method, row.shots), {}))
    return {
        "trained": round_optional(row.trained_parameters, 0),
        "seconds": round_optional(row.seconds_per_cell),
        "amortised": round_optional(
            row.amortised_seconds if row.amortised_seconds is not None else row.seconds_per_cell
        ),
        "whole": round_optional(row.standalone_seconds),
        "bytes": row.peak_bytes,
        "done": row.num_done,
        "due": row.num_due,
        "phases": {name: round_optional(value, 3) for name, value in {**own, "sources' share": share}.items() if value},
    }


def average_phase_seconds(done_results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int | str], dict[str, float]]:
    """(method, shots) -> mean seconds of its cells by phase."""
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in done_results:
        spent = result["cost"]["seconds"]
        own = {"train": spent.get("train", 0.0), "dev": spent.get("dev", 0.0), "test": spent.get("test", 0.0)}
        own["start and end"] = sum(spent.get(name, 0.0) for name in OVERHEAD_PHASES)
        for phase, seconds in own.items():
            found[result["cell"]["method"], result["cell"]["shots"]][phase].append(seconds)
    return {key: {phase: fmean(values) for phase, values in own.items()} for key, own in found.items()}


def build_rank_diagrams(significance: LeaderboardSignificance) -> dict[str, dict[str, dict[str, Any]]]:
    """shots -> selection -> its critical-difference diagram: methods in order, and bars over those not told apart."""
    found: dict = {}
    for (shots, name), (names, ranks) in significance.average_ranks.items():
        found.setdefault(str(shots), {})[name] = {
            "methods": names,
            "mean": [round(rank, 3) for rank in ranks.mean_ranks],
            "gap": round(ranks.critical_difference, 3),
            "p": ranks.p_value,
            "tasks": ranks.num_tasks,
            "bars": find_rank_cliques(ranks),
        }
    return found


def build_crossings(leaderboard: Leaderboard, significance: LeaderboardSignificance) -> dict[str, list[list[Any]]]:
    """Selection or task -> [method, method, *shots.Crossing] where the curves of two trained methods cross."""
    lines = {(line.method, line.shots): line for line in leaderboard.rows if not line.is_control}
    shots = list(dict.fromkeys(line.shots for line in leaderboard.rows))
    found: dict[str, list[list[Any]]] = {}
    for name in dict.fromkeys((*leaderboard.task_groups, *leaderboard.metrics)):
        tasks = leaderboard.task_groups.get(name, name)
        for a, b in combinations(dict.fromkeys(method for method, _ in lines), 2):
            if can_cross([(get_estimate(lines[a, k], name), get_estimate(lines[b, k], name)) for k in shots]):
                gaps = {k: significance.paired_scores.compute_difference((a, (k,)), (b, (k,)), tasks) for k in shots}
                found.setdefault(name, []).extend([a, b, *one] for one in crossed(gaps))
    return {name: own for name, own in found.items() if own}


def can_cross(estimate_pairs: Iterable[tuple[MeanEstimate | None, MeanEstimate | None]]) -> bool:
    """Whether two curves may cross: a look at their means, where both have the same seeds, spares most comparisons."""
    known = [(a, b) for a, b in estimate_pairs if a and b]
    signs = {a.mean > b.mean for a, b in known if a.mean != b.mean}
    return len(signs) > 1 or any(a.num_seeds != b.num_seeds for a, b in known)


def build_variance_rows(
    planned_cells: Iterable[Any], results: Iterable[Mapping[str, Any]]
) -> list[tuple[str, int | str, str, list[float]]]:
    """(method, shots, part, [deviation, low, high] x 100) where runs isolate more than the whole."""
    found = []
    for (method, shots), tasks in seed_variance.group_scores_by_seeds(planned_cells, results).items():
        split = seed_variance.decompose_variance(tasks)
        if set(split) - {seed_variance.ALL_STREAMS}:
            found += [
                (
                    method,
                    shots,
                    seed_variance.STREAM_TITLES[name],
                    [100 * value for value in one.compute_standard_deviation()],
                )
                for name, one in split.items()
            ]
    return found


# -------------------------------------------------------------------- cells


def collect_cell_facts(results: Sequence[IndexedResult]) -> CellFacts:
    """One pass over the files: what is long in them is not in the index."""
    found = CellFacts([], [], 0, {}, {}, [], [], None)
    commits, devices, days, left_out = {}, {}, [], 0
    for result in sorted(results, key=lambda one: (str(one["cell"]["seed"]), one["times"]["finished"])):
        whole = read_result_file(result.path) or result
        at, environment = result["cell"], whole.get("environment", {})
        commits[environment.get("commit")] = devices[environment.get("device")] = None
        days.append(result["times"]["finished"][:10])
        found.environment.update(environment)
        found.cells.append(build_cell_entry(result))
        training = whole.get("training")
        if result["state"] != "done" or not training or not training["loss"]:
            continue
        if at["stage"] == TARGET_STAGE and len(training["dev"]) > 1 and not training["stopped"]:
            before, end = (score for _, score, *_ in training["dev"][-2:])
            found.final_dev_gains.setdefault((at["method"], at["shots"]), []).append(end - before)
        if len(found.curves) < MAX_CURVES:
            found.curves.append(build_curve_entry(result, training))
        else:
            left_out += 1
    return found._replace(
        num_omitted_curves=left_out,
        commits=[one[:10] for one in commits if one],
        devices=[one for one in devices if one],
        date_range=(min(days), max(days)) if days else None,
    )


def build_cell_entry(result: Mapping[str, Any]) -> list[Any]:
    """[method, task, shots, seed, stage, state, score, seconds, identity, reason]"""
    value = result.get("metrics", {}).get("test", {}).get(result["task"]["metric"])
    reason = (result.get("error") or {}).get("reason", "")
    return [*result["cell"].values(), result["state"], round_optional(None if value is None else 100 * value),
            round_optional(result["times"]["seconds"], 1), result["identity"][:16], reason]  # fmt: skip


def build_curve_entry(result: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    every = max(1, -(-len(training["loss"]) // MAX_CURVE_POINTS))
    loss = [[step, round(value, 3)] for step, value in training["loss"][every - 1 :: every]]
    dev = [[step, round(100 * value, 1)] for step, value, *_ in training["dev"]]
    cell = result["cell"]
    return {"m": cell["method"], "t": cell["task"], "k": str(cell["shots"]), "s": cell["seed"], "g": cell["stage"],
            "loss": loss, "dev": dev}  # fmt: skip


def build_task_entries(profile: Profile, leaderboard: Leaderboard) -> dict[str, dict[str, Any]]:
    return {
        name: {"role": get_task_role(profile, name)}
        | {key: getattr(specs.get_task_spec(name), key) for key in ("family", "form", "metric", "licence")}
        for name in leaderboard.metrics
    }


def build_method_entries(profile: Profile) -> dict[str, dict[str, Any]]:
    """Facts of each row, for points and words."""
    found = {}
    for name in profile.methods:
        fact = specs.get_method_spec(name)
        found[name] = {"what": fact.trained_part, "paper": fact.paper, "control": not fact.uses_gradient_descent,
                       "fixed": fact.is_seed_independent, "sources": fact.learns_from_sources and fact.uses_gradient_descent}  # fmt: skip
    return found
