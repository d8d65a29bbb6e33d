"""`benchmark recommend`: the method to try first, what is tied with it, and how much is lost if that is wrong.

The rule: of the methods within the limits, the one with the highest mean over the tasks asked for. What it is worth:

- tied: the difference to the first is not told from 0 (paired, Holm-corrected for the number of methods);
- loss: by how much the best method is above the first, in draws of seeds and test examples (paired bootstrap): 0 where
  the first is the best, so its average is what trusting it costs;
- held out: the rule on all but one task, and how far below that task's best method its choice ends.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from statistics import fmean
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark import report, standing
from benchmark.compare import TIED, cheaper, points, verdicts
from benchmark.evidence import ASKED, Evidence, gathered
from benchmark.profile import Profile
from benchmark.stats import Difference
from benchmark.table import LEVEL, Line, at_shots
from tasks.example import UsageError

SHOWN = 8  # methods of the table
MOST = 3  # held-out tasks that are named
AHEAD = "ahead"  # of the first
BEHIND = "behind"  # nobody is ahead of the highest mean


class Held(NamedTuple):
    """A task that the rule did not see."""

    task: str
    picked: str
    best: str
    lost: float
    blind: float  # what a method drawn at random loses


def recommend(found: Profile, options: argparse.Namespace, say: Console) -> int:
    seen = gathered(found, options)
    usable, refused = within(seen, options)
    usable.sort(key=lambda line: -mean(line))
    first, *others = usable
    gaps = {line.method: gap(seen, line, first) for line in others}
    said = verdicts(gaps, AHEAD, BEHIND)
    say.print(f"Try {first.method} first: {seen.title}, {at_shots(seen.shots)}", style="bold", soft_wrap=True)
    draw(say, usable, gaps, said)
    held = held_out(usable, seen.tasks if len(seen.tasks) > 1 else seen.table.profile.tasks)
    for line in (*worth(seen, usable, said, held), *doubts(found, seen, usable, said, held, refused)):
        say.print(line, soft_wrap=True, markup=False)
    return 0


# -------------------------------------------------------------------- what it is worth


def mean(line: Line) -> float:
    return line.averages[ASKED].mean


def gap(seen: Evidence, line: Line, other: Line) -> Difference | None:
    return seen.kept.difference((line.method, (line.shots,)), (other.method, (other.shots,)), seen.tasks)


def within(seen: Evidence, options: argparse.Namespace) -> tuple[list[Line], dict[str, str]]:
    """(methods that the limits allow and that are clear of guessing, why the others are not), unless none is clear."""
    lines = [line for line in seen.table.at(seen.shots) if not line.control and line.averages[ASKED]]
    fitting = [line for line in lines if fits(line, options)]
    if not fitting:
        least = min(lines, key=lambda line: (line.bytes, cost(line)))
        need = f"{least.method} takes {report.memory(least.bytes)} and {cost(least):.1f} s"
        raise UsageError(f"no method within the limits: {need}; allow more with --memory and --seconds")
    methods = seen.table.profile.methods
    why = {line.method: standing.flag(seen.kept, methods, line, seen.tasks) for line in fitting}
    why |= {line.method: "over the limits" for line in lines if line not in fitting}
    clear = [line for line in fitting if not why[line.method]]
    return clear or fitting, {name: reason for name, reason in why.items() if reason}


def fits(line: Line, options: argparse.Namespace) -> bool:
    return line.bytes <= (options.memory or inf) and cost(line) <= (options.seconds or inf)


def cost(line: Line) -> float:
    return line.seconds if line.whole is None else line.whole  # with all that it rests on


def losses(seen: Evidence, usable: Sequence[Line]) -> np.ndarray | None:
    """What the first loses in each draw of seeds and examples; None where a pair has no interval."""
    gaps = [gap(seen, line, usable[0]) for line in usable[1:]]
    if not gaps or not all(one and one.spreads for one in gaps):
        return None
    rows = [(line.method, (line.shots,)) for line in usable]
    return np.maximum(seen.kept.resampled(rows[1:], rows[0], seen.tasks).max(1), 0.0)


def held_out(lines: Sequence[Line], tasks: Sequence[str]) -> list[Held]:
    """The rule on all other tasks, for each task that all methods have."""
    due = max(line.averages[ASKED].seeds for line in lines)
    tasks = [task for task in tasks if all((one := line.tasks[task]) and one.seeds == due for line in lines)]
    if len(tasks) < 2 or len(lines) < 2:
        return []
    found = []
    for task in tasks:
        picked = max(lines, key=lambda line: fmean(line.tasks[other].mean for other in tasks if other != task))
        best = max(lines, key=lambda line: line.tasks[task].mean)
        top, blind = best.tasks[task].mean, fmean(line.tasks[task].mean for line in lines)
        found.append(Held(task, picked.method, best.method, top - picked.tasks[task].mean, top - blind))
    return found


# -------------------------------------------------------------------- telling


def draw(say: Console, usable: Sequence[Line], gaps: Mapping[str, Difference | None], said: Mapping[str, str]) -> None:
    grid = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0))
    for name in ("method", "mean", "to the first", "", "trained", "s/cell", "with sources", "memory"):
        grid.add_column(name, justify="left" if name in ("method", "") else "right", no_wrap=True)
    for line in usable[:SHOWN]:
        name = line.method
        grid.add_row(
            name, report.points(line.averages[ASKED]), points(gaps.get(name)), said.get(name, "first"),
            report.count(line.trained), f"{line.seconds:.1f}", report.resting(line), report.memory(line.bytes),
        )  # fmt: skip
    say.print(grid)


def worth(seen: Evidence, usable: Sequence[Line], said: Mapping[str, str], held: Sequence[Held]) -> Iterator[str]:
    """What a choice by this table is worth."""
    first, below = usable[0], [line.method for line in usable[SHOWN:]]
    if below:
        yield f"Below these: {', '.join(below)}."
    tied = [line for line in usable[1:] if said[line.method] == TIED]
    if tied:
        least = min((first, *tied), key=cost)
        less = ", ".join(text for text in cheaper(first, least) if text.startswith(f"{least.method} "))
        yield f"Not told apart from {first.method}: {', '.join(line.method for line in tied)}{less and f' ({less})'}."
    lost = losses(seen, usable)
    if lost is not None:
        average, most, best = 100 * lost.mean(), 100 * np.quantile(lost, LEVEL), 100 * np.mean(lost == 0)
        yield (
            f"If that is wrong: {average:.1f} points are lost on average, up to {most:.1f} in 95 % of draws of "
            f"{len(seen.table.profile.seeds)} seeds and of test examples (bootstrap; too narrow with few seeds). "
            f"{first.method} is best in {best:.0f} %."
        )
    idle = [line for line in seen.table.at(seen.shots) if line.method == "zero_shot" and line.averages[ASKED]]
    for line in idle:
        yield f"Over the untrained backbone (zero_shot): {points(gap(seen, first, line))} points."
    if held:
        worst = sorted((one for one in held if one.lost > 0), key=lambda one: -one.lost)[:MOST]
        each = ", ".join(f"{one.task} {100 * one.lost:.1f}: {one.picked}, best {one.best}" for one in worst)
        yield (
            f"Held out, each of {len(held)} tasks by the others: the choice loses "
            f"{100 * fmean(one.lost for one in held):.1f} points on average to the task's own best method, a method "
            f"drawn at random {100 * fmean(one.blind for one in held):.1f}{each and f' (most on {each})'}."
        )


def doubts(found: Profile, seen: Evidence, usable: Sequence[Line], said: Mapping[str, str], held: Sequence[Held],
           refused: Mapping[str, str]) -> Iterator[str]:  # fmt: skip
    """Why one should not trust it, and what would help."""
    thin, first, seeds = list(seen.lacks), usable[0], seen.table.profile.seeds
    offered = {line.method for line in usable}
    if len(seeds) < 2:
        thin.append("one seed says nothing of another, so there are no ties and no expected loss")
    if len(usable) < 2:
        thin.append(f"{first.method} is compared with nothing")
    elif set(said.values()) == {TIED}:
        thin.append("no method is told from another")
    if len(seen.tasks) < 2:
        thin.append(f"{seen.tasks[0]} is the only task")
    if held and fmean(one.lost for one in held) >= fmean(one.blind for one in held):
        thin.append("on held-out tasks the rule was no better than a method drawn at random")
    if first.method in refused:
        thin.append(f"{first.method} itself is {refused[first.method]}")
    if thin:
        yield f"The evidence is thin: {'; '.join(thin)}."
    for why, number in Counter(seen.kept.unusable.values()).items():
        yield f"{number} cells are in no difference: {why}."
    for why in dict.fromkeys(refused.values()):
        if names := [name for name, reason in refused.items() if reason == why and name not in offered]:
            yield f"Not offered, {why}: {', '.join(names)}."
    if seen.left_out:
        names = list(seen.left_out)
        ahead = [f"{name} {points(one)}" for name in names if (one := seen.partly(name, first.method)) and one.mean > 0]
        yield (
            f"Left out: {', '.join(f'{name} ({why})' for name, why in seen.left_out.items())}"
            f"{ahead and f', ahead of {first.method} there: ' + ', '.join(ahead) or ''}. To compare them: python -m "
            f"benchmark run {found.flags} --methods {','.join(names)} --tasks {','.join(seen.tasks)} "
            f"--shots {seen.shots} --seeds {','.join(map(str, seeds))}"
        )
    if found.source == "sample":
        yield "The records are invented samples: this ranks methods on them, not on data of yours."
