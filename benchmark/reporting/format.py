"""TODO."""

from collections.abc import Iterator, Sequence

from benchmark.analysis.intervals import MeanEstimate, to_percent
from benchmark.analysis.leaderboard import LeaderboardRow
from benchmark.analysis.significance import RowSignificance
from benchmark.analysis.statistics import PairedDifference

MIN_COST_RATIO = 1.05  # costs closer than this are the same


def format_difference(difference: PairedDifference | None) -> str:
    """+2.3 ±1.1"""
    if difference is None:
        return ""
    half = difference.compute_half_width()
    return f"{to_percent(difference.mean):+.1f}" + ("" if half is None else f" ±{to_percent(half):.1f}")


def describe_cost_advantages(first_row: LeaderboardRow, second_row: LeaderboardRow) -> Iterator[str]:
    """lora trains 5x fewer parameters"""
    for what, values in (("trains {}x fewer parameters", (first_row.trained_parameters, second_row.trained_parameters)),
                         ("is {}x faster", (first_row.seconds_per_cell, second_row.seconds_per_cell))):  # fmt: skip
        if None in values or not min(values) or (ratio := max(values) / min(values)) < MIN_COST_RATIO:
            continue
        name = (first_row if values[0] < values[1] else second_row).method
        yield f"{name} {what.format(f'{ratio:.0f}' if ratio >= 9.5 else f'{ratio:.1f}')}"


CONTROL_MARK = "†"


def format_score(estimate: MeanEstimate | None, num_planned_seeds: int | None = None) -> str:
    """71.5 ±2.3, with (2/3) while seeds are missing."""
    if estimate is None:
        return ""
    spread = "" if estimate.half_width is None else f" ±{to_percent(estimate.half_width):.1f}"
    short = (
        f" ({estimate.num_seeds}/{num_planned_seeds})"
        if num_planned_seeds and estimate.num_seeds < num_planned_seeds
        else ""
    )
    return f"{to_percent(estimate.mean):.1f}{spread}{short}"


def format_seconds_with_dependencies(row: LeaderboardRow) -> str:
    """12.3 (95.0): seconds of a cell with its share of what it rests on, and with all; empty where it needs nothing."""
    if row.standalone_seconds is None or row.standalone_seconds == row.seconds_per_cell:
        return ""
    return f"{row.amortised_seconds:.1f} ({row.standalone_seconds:.1f})"


UNRANKED_MARK = "‡"


def format_percent_range(differences: Sequence[float]) -> str:
    """1.6 to 3.9, x 100"""
    return " to ".join(dict.fromkeys(f"{100 * size:.1f}" for size in (min(differences), max(differences))))


def format_significance(significance: RowSignificance) -> str:
    """-2.1 ±1.3 b, with ‡ in place of a letter where the line has no rank."""
    gap, text = significance.difference, ""
    if gap:
        half = gap.compute_half_width()
        text = f"{to_percent(gap.mean):+.1f}" + (" (1 seed)" if half is None else f" ±{to_percent(half):.1f}")
    return f"{text} {UNRANKED_MARK if significance.unranked_reason else significance.tie_letters}".strip()
