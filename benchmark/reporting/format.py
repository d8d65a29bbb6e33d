"""Format scores, differences and costs for tables and sentences."""

from collections.abc import Iterator, Sequence

from benchmark.analysis.intervals import MeanEstimate, to_percent
from benchmark.analysis.leaderboard import LeaderboardRow
from benchmark.analysis.significance import RowSignificance
from benchmark.analysis.statistics import PairedDifference

CONTROL_MARK = "†"  # baseline without gradient training
UNRANKED_MARK = "‡"
MIN_COST_RATIO = 1.05  # smaller cost ratios are not reported


def format_difference(difference: PairedDifference | None) -> str:
    """Format as "+2.3 ±1.1" (x 100), without ± if there is no interval, or "" if there is no difference."""
    if difference is None:
        return ""
    half = difference.compute_half_width()
    return f"{to_percent(difference.mean):+.1f}" + ("" if half is None else f" ±{to_percent(half):.1f}")


def describe_cost_advantages(first_row: LeaderboardRow, second_row: LeaderboardRow) -> Iterator[str]:
    """Phrases on the cheaper method, e.g. "lora trains 5.0x fewer parameters"."""
    costs = (
        ("trains {}x fewer parameters", first_row.trained_parameters, second_row.trained_parameters),
        ("is {}x faster", first_row.seconds_per_cell, second_row.seconds_per_cell),
    )
    for phrase, first_cost, second_cost in costs:
        if not first_cost or not second_cost:
            continue
        ratio = max(first_cost, second_cost) / min(first_cost, second_cost)
        if ratio < MIN_COST_RATIO:
            continue
        cheaper = first_row if first_cost < second_cost else second_row
        yield f"{cheaper.method} {phrase.format(f'{ratio:.0f}' if ratio >= 9.5 else f'{ratio:.1f}')}"


def format_score(estimate: MeanEstimate | None, num_planned_seeds: int | None = None) -> str:
    """Format as "71.5 ±2.3" (x 100), followed by "(2/3)" if seeds are missing."""
    if estimate is None:
        return ""
    spread = "" if estimate.half_width is None else f" ±{to_percent(estimate.half_width):.1f}"
    seed_count = (
        f" ({estimate.num_seeds}/{num_planned_seeds})"
        if num_planned_seeds and estimate.num_seeds < num_planned_seeds
        else ""
    )
    return f"{to_percent(estimate.mean):.1f}{spread}{seed_count}"


def format_seconds_with_dependencies(row: LeaderboardRow) -> str:
    """Format as "12.3 (95.0)": seconds per cell with its share of its dependencies, and with all of them.

    Empty for a method without dependencies.
    """
    if row.standalone_seconds is None or row.standalone_seconds == row.seconds_per_cell:
        return ""
    return f"{row.amortised_seconds:.1f} ({row.standalone_seconds:.1f})"


def format_percent_range(differences: Sequence[float]) -> str:
    """Format the range as "1.6 to 3.9" (x 100)."""
    return " to ".join(dict.fromkeys(f"{100 * size:.1f}" for size in (min(differences), max(differences))))


def format_significance(significance: RowSignificance) -> str:
    """Format as "-2.1 ±1.3 b": difference and letters, with ‡ in place of letters for an unranked method."""
    text = ""
    if difference := significance.difference:
        half = difference.compute_half_width()
        text = f"{to_percent(difference.mean):+.1f}" + (" (1 seed)" if half is None else f" ±{to_percent(half):.1f}")
    return f"{text} {UNRANKED_MARK if significance.unranked_reason else significance.tie_letters}".strip()
