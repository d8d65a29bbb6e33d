"""Leaderboard figure: average score against trained parameters, and the scores of every task with intervals."""

from collections.abc import Sequence
from itertools import cycle
from math import log10
from pathlib import Path
from typing import Any

from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow

# The colour-blind-safe palette of Okabe and Ito, followed by darker and lighter colours
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#44AA99", "#999933", "#332288",
           "#AA4499", "#117733", "#DDCC77", "#88CCEE", "#661100", "#6699CC")  # fmt: skip
GREY = "#8a8a8a"
MARKERS = "oDs^vPX*"
MAX_CONTROL_GAP = 8  # points; baselines further below all methods are named but not drawn, to keep the scale readable
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555",
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "xtick.color": "#333333",
    "ytick.color": "#333333", "svg.hashsalt": "adapterbench", "axes.axisbelow": True,
}  # fmt: skip


def draw_leaderboard(leaderboard: Leaderboard, folder: Path) -> None:
    """Write leaderboard.png and leaderboard.svg to the folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [row.method for row in leaderboard.rows if not row.is_control]
    colours = dict(zip(dict.fromkeys(trained), cycle(COLOURS), strict=False))
    height = max(4.5, max(0.42, 0.05 * len(colours)) * len(leaderboard.metrics) + 1.6)
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = pyplot.subplots(
            1, 2, figsize=(12, height), width_ratios=(1, 1.15), layout="constrained"
        )
        draw_score_against_size(left, leaderboard, colours)
        draw_task_scores(right, leaderboard, colours)
        handles, labels = right.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(labels)), frameon=False)
        for kind in ("png", "svg"):
            options = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 160}
            figure.savefig(folder / f"leaderboard.{kind}", facecolor="white", **options)
        pyplot.close(figure)


def draw_score_against_size(axes: Any, leaderboard: Leaderboard, colour_by_method: dict[str, str]) -> None:
    """Draw average scores against trained parameters; baselines, which train none, are horizontal lines."""
    group = next(iter(leaderboard.task_groups))
    shots = list(dict.fromkeys(row.shots for row in leaderboard.rows))
    points = []
    label_positions = cycle(((0.995, "right"), (0.01, "left"), (0.5, "center")))  # baselines often lie close together
    lower_ends = [
        100 * (estimate.mean - (estimate.half_width or 0))
        for row in leaderboard.rows
        if not row.is_control and (estimate := row.averages[group])
    ]
    lowest_drawn = min(lower_ends, default=0) - MAX_CONTROL_GAP
    not_drawn = []
    for row in leaderboard.rows:
        estimate = row.averages[group]
        if estimate is None:
            continue
        score = 100 * estimate.mean
        if row.is_control:
            if score < lowest_drawn:
                not_drawn.append(f"{row.method} {score:.1f}")
            elif row.shots == shots[0] or not row.is_seed_independent:
                axes.axhline(score, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
                x, alignment = next(label_positions)
                options = {"xycoords": ("axes fraction", "data"), "ha": alignment, "va": "bottom"}
                label = row.method if row.is_seed_independent or len(shots) == 1 else f"{row.method}, {row.shots}"
                axes.annotate(label, (x, score), color=GREY, fontsize=9, **options)
            continue
        size = max(1.0, row.trained_parameters)
        colour = colour_by_method[row.method]
        axes.errorbar(
            size,
            score,
            yerr=100 * estimate.half_width if estimate.half_width else None,
            fmt=MARKERS[shots.index(row.shots) % len(MARKERS)],
            color=colour,
            markersize=7,
            capsize=3,
            linewidth=1.4,
        )
        label = row.method if len(shots) == 1 else f"{row.method}, {row.shots}"
        points.append((size, score, label, colour))
    axes.set_xscale("log")
    axes.margins(x=0.18, y=0.12)
    place_labels(axes, points)
    if not_drawn:
        text = f"further below: {', '.join(dict.fromkeys(not_drawn))}"
        axes.annotate(text, (0.01, 0.01), xycoords="axes fraction", color=GREY, fontsize=9)
    axes.grid(alpha=0.25)
    axes.set_xlabel("trained parameters")
    axes.set_ylabel(f"mean over {len(leaderboard.task_groups[group])} {group}, x 100")
    axes.set_title("Score against trained parameters")
    if not points:
        axes.text(0.5, 0.5, "no method has finished all cells yet", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_xticks([])


def place_labels(axes: Any, labelled_points: Sequence[tuple[float, float, str, str]]) -> None:
    """Annotate points (x, y, label, colour); a label that would overlap another is moved down."""
    width, height = axes.figure.get_size_inches() * 72  # typographic points; the axes take half of the width
    left, right = map(log10, axes.get_xlim())
    low, high = axes.get_ylim()
    placed: list[tuple[float, float, float]] = []  # (left end, right end, height) of the labels, in points
    for x, y, label, colour in sorted(labelled_points, key=lambda point: -point[1]):
        start = (log10(x) - left) / (right - left) * width / 2.4
        end = start + 6 * len(label)
        baseline = (y - low) / (high - low) * height
        shift = 0.0
        while any(
            abs(baseline - shift - other_baseline) < 10 and start < other_end and end > other_start
            for other_start, other_end, other_baseline in placed
        ):
            shift += 2
        placed.append((start, end, baseline - shift))
        axes.annotate(label, (x, y), xytext=(8, 5 - shift), textcoords="offset points", fontsize=9, color=colour)


def draw_task_scores(axes: Any, leaderboard: Leaderboard, colour_by_method: dict[str, str]) -> None:
    """Draw a row per task with a marker and interval per method, at the first number of shots that has results."""
    all_shots = list(dict.fromkeys(row.shots for row in leaderboard.rows))
    shots_with_results = [
        shots
        for shots in all_shots
        if any(any(row.task_scores.values()) for row in leaderboard.get_rows(shots) if not row.is_control)
    ]
    shots = (shots_with_results or all_shots)[0]
    rows = leaderboard.get_rows(shots)
    task_names = [
        task for group, members in leaderboard.task_groups.items() if not group.startswith("choice") for task in members
    ]
    step = 0.7 / max(1, len(rows))  # vertical distance between the methods of a task
    control_markers = iter(("|", "x", "1", "2", "3", "4"))
    marker_styles = {
        method: {"fmt": MARKERS[index // len(COLOURS) % len(MARKERS)], "color": colour}
        for index, (method, colour) in enumerate(colour_by_method.items())
    }
    for index, row in enumerate(rows):
        estimates = [(task_names.index(task), estimate) for task, estimate in row.task_scores.items() if estimate]
        if not estimates:
            continue
        offset = (index - (len(rows) - 1) / 2) * step
        y = [task_index + offset for task_index, _ in estimates]
        means = [100 * estimate.mean for _, estimate in estimates]
        half_widths = [100 * (estimate.half_width or 0) for _, estimate in estimates]
        style = {"fmt": next(control_markers, "|"), "color": GREY} if row.is_control else marker_styles[row.method]
        axes.errorbar(means, y, xerr=half_widths, label=_get_legend_label(row), markersize=5, linewidth=1.2, **style)
    for task_index in range(0, len(task_names), 2):
        axes.axhspan(task_index - 0.5, task_index + 0.5, color="#f4f4f4", zorder=0)
    axes.set_yticks(range(len(task_names)), [f"{name}  ({leaderboard.metrics[name]})" for name in task_names])
    axes.set_ylim(len(task_names) - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel("test score x 100, with the 95 % interval over seeds")
    axes.set_title(f"Every task, {shots} shots" if shots != "full" else "Every task, full data")


def _get_legend_label(row: LeaderboardRow) -> str:
    return f"{row.method} (baseline)" if row.is_control else row.method
