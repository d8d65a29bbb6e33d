"""One picture of a leaderboard: what quality costs in trained parameters, and every task with its intervals."""

from collections.abc import Sequence
from itertools import cycle
from math import log10
from pathlib import Path

from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow

# Okabe and Ito's palette, told apart by colour-blind eyes too, then darker and lighter companions
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#44AA99", "#999933", "#332288",
           "#AA4499", "#117733", "#DDCC77", "#88CCEE", "#661100", "#6699CC")  # fmt: skip
GREY = "#8a8a8a"
MARKERS = "oDs^vPX*"
MAX_CONTROL_GAP = 8  # points: a control further below all methods than this would only press them together
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555",
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "xtick.color": "#333333",
    "ytick.color": "#333333", "svg.hashsalt": "adapterbench", "axes.axisbelow": True,
}  # fmt: skip


def draw_leaderboard(leaderboard: Leaderboard, folder: Path) -> None:
    """leaderboard.png and leaderboard.svg in the folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [line.method for line in leaderboard.rows if not line.is_control]
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


def draw_score_against_size(axes, leaderboard: Leaderboard, colour_by_method: dict[str, str]) -> None:
    """Average score against trained parameters; controls as lines across, since they train none."""
    group = next(iter(leaderboard.task_groups))
    shots = list(dict.fromkeys(line.shots for line in leaderboard.rows))
    points, sides = [], cycle(((0.995, "right"), (0.01, "left"), (0.5, "center")))  # controls often lie close together
    ends = [
        100 * (f.mean - (f.half_width or 0))
        for line in leaderboard.rows
        if not line.is_control and (f := line.averages[group])
    ]
    far, lowest = [], min(ends, default=0) - MAX_CONTROL_GAP
    for line in leaderboard.rows:
        mean = line.averages[group]
        if mean is None:
            continue
        if line.is_control:
            if 100 * mean.mean < lowest:
                far.append(f"{line.method} {100 * mean.mean:.1f}")
            elif line.shots == shots[0] or not line.is_seed_independent:
                axes.axhline(100 * mean.mean, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
                side, align = next(sides)
                place = {"xycoords": ("axes fraction", "data"), "ha": align, "va": "bottom"}
                name = line.method if line.is_seed_independent or len(shots) == 1 else f"{line.method}, {line.shots}"
                axes.annotate(name, (side, 100 * mean.mean), color=GREY, fontsize=9, **place)
            continue
        marker = MARKERS[shots.index(line.shots) % len(MARKERS)]
        axes.errorbar(max(1.0, line.trained_parameters), 100 * mean.mean, yerr=100 * mean.half_width if mean.half_width else None, fmt=marker,
                      color=colour_by_method[line.method], markersize=7, capsize=3, linewidth=1.4)  # fmt: skip
        name = line.method if len(shots) == 1 else f"{line.method}, {line.shots}"
        points.append((max(1.0, line.trained_parameters), 100 * mean.mean, name, colour_by_method[line.method]))
    axes.set_xscale("log")
    axes.margins(x=0.18, y=0.12)
    place_labels(axes, points)
    if far:
        axes.annotate(f"further below: {', '.join(dict.fromkeys(far))}", (0.01, 0.01), xycoords="axes fraction",
                      color=GREY, fontsize=9)  # fmt: skip
    axes.grid(alpha=0.25)
    axes.set_xlabel("trained parameters")
    axes.set_ylabel(f"mean over {len(leaderboard.task_groups[group])} {group}, x 100")
    axes.set_title("What quality costs")
    if not points:
        axes.text(0.5, 0.5, "no method has all of its cells yet", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_xticks([])


def place_labels(axes, labelled_points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside their points, of which those that would lie on each other go one above the other."""
    width, height = axes.figure.get_size_inches() * 72  # points of print; the axes take half of the width
    left, right = map(log10, axes.get_xlim())
    low, high = axes.get_ylim()
    placed: list[tuple[float, float, float]] = []
    for x, y, name, colour in sorted(labelled_points, key=lambda one: -one[1]):
        across, up, reach = (log10(x) - left) / (right - left) * width / 2.4, (y - low) / (high - low) * height, 0.0
        while any(abs(up - reach - other) < 10 and across < end and across + 6 * len(name) > begin
                  for begin, end, other in placed):  # fmt: skip
            reach += 2
        placed.append((across, across + 6 * len(name), up - reach))
        axes.annotate(name, (x, y), xytext=(8, 5 - reach), textcoords="offset points", fontsize=9, color=colour)


def draw_task_scores(axes, leaderboard: Leaderboard, colour_by_method: dict[str, str]) -> None:
    """A row per task, a dot per method, with its interval; at the first number of shots that has results."""
    options = list(dict.fromkeys(line.shots for line in leaderboard.rows))
    full = [
        shots
        for shots in options
        if any(f for line in leaderboard.get_rows(shots) if not line.is_control for f in line.task_scores.values())
    ]
    shots = (full or options)[0]
    lines = leaderboard.get_rows(shots)
    names = [
        task for group, members in leaderboard.task_groups.items() if not group.startswith("choice") for task in members
    ]
    step = 0.7 / max(1, len(lines))
    controls = iter(("|", "x", "1", "2", "3", "4"))
    looks = {method: {"fmt": MARKERS[place // len(COLOURS) % len(MARKERS)], "color": colour}
             for place, (method, colour) in enumerate(colour_by_method.items())}  # fmt: skip
    for place, line in enumerate(lines):
        rows = [(names.index(task), figure) for task, figure in line.task_scores.items() if figure]
        if not rows:
            continue
        y = [row + (place - (len(lines) - 1) / 2) * step for row, _ in rows]
        look = {"fmt": next(controls, "|"), "color": GREY} if line.is_control else looks[line.method]
        means, halves = [100 * f.mean for _, f in rows], [100 * (f.half_width or 0) for _, f in rows]
        axes.errorbar(means, y, xerr=halves, label=_get_legend_label(line), markersize=5, linewidth=1.2, **look)
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", zorder=0)
    axes.set_yticks(range(len(names)), [f"{name}  ({leaderboard.metrics[name]})" for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel("test score x 100, with the 95 % interval over seeds")
    axes.set_title(f"Every task, {shots} shots" if shots != "full" else "Every task, full data")


def _get_legend_label(row: LeaderboardRow) -> str:
    return f"{row.method} (control)" if row.is_control else row.method
