"""`benchmark compare A B`: two methods by task and overall, what each costs, and in words what that is worth."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark import profile, reading, report
from benchmark.paired import Kept
from benchmark.profile import Profile
from benchmark.stats import Difference, holm
from benchmark.store import Store
from benchmark.table import LEVEL, Board, Line, at_shots, board, hundred
from tasks.example import UsageError

TIED = "tied"
ALONE = "one seed"
MISSING = "not run"
ALL = "all tasks"
ALIKE = 1.05  # costs closer than this are the same


def compare(found: Profile, a: str, b: str, say: Console) -> int:
    """A screen for each number of shots."""
    if a == b:
        raise UsageError(f"compare {a} {b}: name two different methods")
    pair = profile.check(replace(found, methods=(a, b)))
    _, results, old = reading.collect(pair, Store(pair.folder))
    if not results:
        run = f"python -m benchmark run {found.flags} --methods {a},{b}"
        stale = f" ({old} cells are of other code, options or data)" if old else ""
        raise UsageError(f"no results of {a} or {b} in {pair.folder}{stale}; `{run}` makes them")
    table, kept = board(pair, results), Kept(pair, results)
    for shots in dict.fromkeys(line.shots for line in table.lines):
        screen(table, kept, shots, say)
    for why, number in Counter(kept.unusable.values()).items():
        say.print(f"{number} cells are in no difference: {why}", style="dim")
    return 0


def screen(table: Board, kept: Kept, shots: int | str, say: Console) -> None:
    """Tasks, averages and costs of one number of shots, then the verdict."""
    first, second = (line for method in table.profile.methods for line in table.at(shots) if line.method == method)
    rows, every = ((first.method, (shots,)), (second.method, (shots,))), tuple(table.metrics)
    gaps = {task: kept.difference(*rows, task) for task in every}
    means = {name: kept.difference(*rows, tasks) for name, tasks in {**table.groups, ALL: every}.items()}
    said = verdicts(gaps, first.method, second.method)
    grid = Table(box=SIMPLE_HEAD, header_style="dim", title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    grid.title = f"{first.method} against {second.method}, {at_shots(shots)}"
    for name in ("", first.method, second.method, "difference", "verdict"):
        grid.add_column(name, justify="left" if name in ("", "verdict") else "right")
    for task, gap in gaps.items():
        figures = (report.points(line.tasks[task], line.seeds) for line in (first, second))
        grid.add_row(task, *figures, points(gap), said[task], end_section=task == every[-1])
    for name, gap in means.items():
        figures = (report.points(line.averages.get(name)) for line in (first, second))
        grid.add_row(name, *figures, points(gap), verdict(gap, gap and gap.p(), first.method, second.method))
    for name, values in costs(first, second).items():
        grid.add_row(name, *values)
    say.print(grid)
    for line in words(first, second, gaps, said, means[ALL]):
        say.print(line, soft_wrap=True)
    if means[ALL] and means[ALL].spreads:
        low, high = kept.bootstrap(*rows, every)
        say.print(
            f"± is half of the 95 % interval over {over(means[ALL])}; tasks are corrected for their number (Holm). "
            f"Bootstrap over both, which is too narrow with few seeds: {100 * low:+.1f} to {100 * high:+.1f}.",
            style="dim",
        )


def points(gap: Difference | None) -> str:
    """+2.3 ±1.1"""
    if gap is None:
        return ""
    half = gap.half()
    return f"{hundred(gap.mean):+.1f}" + ("" if half is None else f" ±{hundred(half):.1f}")


def over(gap: Difference) -> str:
    """What an interval is over."""
    return f"{gap.seeds} seeds and the test examples" if gap.seeds > 1 else "the test examples; no seed changes either"


def verdicts(gaps: dict[str, Difference | None], a: str, b: str) -> dict[str, str]:
    """By task, corrected for the number of tasks."""
    values = {task: gap.p() for task, gap in gaps.items() if gap and gap.spreads}
    corrected = dict(zip(values, holm(list(values.values())), strict=True))
    return {task: verdict(gap, corrected.get(task), a, b) for task, gap in gaps.items()}


def verdict(gap: Difference | None, p: float | None, a: str, b: str) -> str:
    if gap is None:
        return MISSING
    if p is None:
        return ALONE
    return TIED if p >= 1 - LEVEL else a if gap.mean > 0 else b


def costs(first: Line, second: Line) -> dict[str, Sequence[str]]:
    lines = (first, second)
    return {
        "trained parameters": [report.count(line.trained) for line in lines],
        "seconds per cell": ["" if line.seconds is None else f"{line.seconds:.1f}" for line in lines],
        "peak memory": [report.memory(line.bytes) for line in lines],
    }


def words(first: Line, second: Line, gaps: dict[str, Difference | None], said: dict[str, str],
          overall: Difference | None) -> Iterator[str]:  # fmt: skip
    """The verdict: task by task, over all of them, and what it costs."""
    a, b = first.method, second.method
    counts = Counter(said.values())
    ahead = [f"{name} is ahead on {counts[name]}" for name in (a, b) if counts[name]]
    done = len(said) - counts[MISSING] - counts[ALONE]
    if done:
        tied = f"{a} and {b} are tied on {counts[TIED]} of {done} tasks at this size"
        yield "; ".join([tied, *ahead, *cheaper(first, second)]) + "."
    elif counts[ALONE]:
        yield "One seed says nothing about another: no verdict. Run more, such as --seeds 0,1,2."
    if overall is None:
        missing = [task for task, gap in gaps.items() if gap is None]
        yield (
            f"No mean over all tasks: {len(missing)} have no pair of results, such as {missing[0]}."
            if missing
            else ("No mean over all tasks: seeds are missing.")
        )
    elif overall.spreads:
        size = 100 * overall.detectable()
        known = f"a true difference would be found with 80 % probability from {size:.1f} points on"
        winner = verdict(overall, overall.p(), a, b)
        told = (
            "they are not told apart"
            if winner == TIED
            else f"{winner} is ahead by {100 * abs(overall.mean):.1f} points"
        )
        yield f"Over all {len(gaps)} tasks {told} (p = {overall.p():.2g}); {known}."


def cheaper(first: Line, second: Line) -> Iterator[str]:
    """lora trains 5x fewer parameters"""
    for what, values in (("trains {}x fewer parameters", (first.trained, second.trained)),
                         ("is {}x faster", (first.seconds, second.seconds))):  # fmt: skip
        if None in values or not min(values) or (ratio := max(values) / min(values)) < ALIKE:
            continue
        name = (first if values[0] < values[1] else second).method
        yield f"{name} {what.format(f'{ratio:.0f}' if ratio >= 9.5 else f'{ratio:.1f}')}"
