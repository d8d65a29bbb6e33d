"""What a leaderboard's numbers are worth: differences to a reference, flags, ties, ranks; in words and numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np

from benchmark.paired import Kept
from benchmark.stats import Difference, Ranks, holm, ranks, tie_groups
from benchmark.table import LEVEL, Board, Line, at_shots, hundred

REFERENCE = "lora"
AT_MAJORITY = "within noise of majority"
BELOW_HEAD = "below head_only"
FLAG = "‡"
GAP = ("difference", "difference_low", "difference_high", "difference_p", "difference_seeds", "detectable")


class Standing(NamedTuple):
    """What a line's number on a task or an average is worth beside others."""

    difference: Difference | None  # to the reference
    p: float | None  # of it, corrected for the number of methods (Holm)
    letters: str  # of its tie groups; none for controls and flagged lines
    flag: str


class Standings(NamedTuple):
    """Of a whole board."""

    reference: dict[int | str, str]  # shots -> method
    rows: dict[tuple[str, int | str, str], Standing]  # (method, shots, task or average)
    ranks: dict[tuple[int | str, str], tuple[list[str], Ranks]]  # (shots, average) -> methods in order, over its tasks
    kept: Kept

    @property
    def unusable(self) -> dict[str, str]:
        """Cell -> why it cannot be compared."""
        return self.kept.unusable


def standings(table: Board, results: Sequence[Mapping[str, Any]], reference: str = REFERENCE) -> Standings:
    """Differences, flags, ties and ranks at every number of shots."""
    kept = Kept(table.profile, results)
    found = Standings({}, {}, {}, kept)
    for shots in dict.fromkeys(line.shots for line in table.lines):
        lines = table.at(shots)
        against = found.reference[shots] = base_line(lines, reference)
        for name, tasks in (table.groups | {task: task for task in table.metrics}).items():
            flags = {line.method: flag(kept, table.profile.methods, line, tasks) for line in lines}
            letters = tied(kept, [line for line in lines if not flags[line.method]], name, tasks)
            gaps = {line.method: kept.difference((line.method, (shots,)), (against, (shots,)), tasks)
                    for line in lines if line.method != against}  # fmt: skip
            values = {method: gap.p() for method, gap in gaps.items() if gap and gap.spreads}
            corrected = dict(zip(values, holm(list(values.values())), strict=True))
            for method in flags:
                found.rows[method, shots, name] = Standing(
                    gaps.get(method), corrected.get(method), letters.get(method, ""), flags[method]
                )
        for name, tasks in table.groups.items():
            ranked = [line for line in lines if not found.rows[line.method, shots, name].flag]
            if order := ranking(ranked, name, tasks):
                found.ranks[shots, name] = order
    return found


def base_line(lines: Sequence[Line], wanted: str) -> str:
    """The method that the others are compared with: the wanted one; where it has no first average the method whose
    variants the rows are (`method:name`), else the best. (While nobody has one: of those with any number.)"""
    trained = [line for line in lines if not line.control] or list(lines)
    known = (
        [line for line in trained if line.first] or [line for line in trained if any(line.tasks.values())] or trained
    )
    names = [line.method for line in known]
    whole = {name.partition(":")[0] for name in names if ":" in name}
    for name in (wanted, *(whole if len(whole) == 1 else ())):
        if name in names:
            return name
    return max(known, key=lambda line: line.first.mean if line.first else -1.0).method


def flag(kept: Kept, methods: Sequence[str], line: Line, tasks: Sequence[str] | str) -> str:
    """Why a line has no rank on these tasks: not clear of guessing, or clearly below a classifier on frozen states."""
    if line.control:
        return ""
    for other, why in (("majority", AT_MAJORITY), ("head_only", BELOW_HEAD)):
        rows = (line.method, (line.shots,)), (other, (line.shots,))
        gap = kept.difference(*rows, tasks) if other in methods else None
        if gap is None or (interval := gap.interval()) is None:
            continue
        low, high = interval
        if low <= 0 if other == "majority" else high < 0:
            return why
    return ""


def tied(kept: Kept, lines: Sequence[Line], name: str, tasks: Sequence[str] | str) -> dict[str, str]:
    """Letters of the trained methods that have this number, best first; none for one that cannot be compared."""
    figures = {line.method: line.averages.get(name) or line.tasks.get(name) for line in lines if not line.control}
    names = sorted((method for method, figure in figures.items() if figure), key=lambda m: -figures[m].mean)
    shots = tuple({line.shots for line in lines})
    differences = {(a, b): kept.difference((a, shots), (b, shots), tasks) for a, b in combinations(names, 2)}
    unknown = [pair for pair, gap in differences.items() if not gap or not gap.spreads]
    while unknown:  # one seed of a method, or its lost predictions, take no letter from the others
        ((lost, _),) = Counter(name for pair in unknown for name in pair).most_common(1)
        names.remove(lost)
        unknown = [pair for pair in unknown if lost not in pair]
    return tie_groups(names, differences)


def ranking(lines: Sequence[Line], name: str, tasks: Sequence[str]) -> tuple[list[str], Ranks] | None:
    """Average ranks over the tasks of an average, of the trained methods that have all of them."""
    complete = [line for line in lines if not line.control and line.averages[name]]
    if len(complete) < 2 or len(tasks) < 2:
        return None
    found = ranks(np.array([[line.tasks[task].mean for line in complete] for task in tasks]))
    order = np.argsort(found.mean, kind="stable")
    return [complete[i].method for i in order], found._replace(mean=[found.mean[i] for i in order])


# -------------------------------------------------------------------- for people, and as numbers


def notes(table: Board, worth: Standings) -> Iterator[str]:
    """What the paired differences rest on, the average ranks, and what the grid is too small to find."""
    group, tasks = next(iter(table.groups.items()))
    yield (
        "vs: paired difference to that method, ± half of its 95 % interval over seeds and test examples. Methods that "
        "share a letter are not told apart (all pairs, Holm-corrected, 5 %)."
    )
    shown = {standing.flag for (*_, name), standing in worth.rows.items() if name == group}
    if flags := sorted(filter(None, shown)):
        yield f"{FLAG} not ranked: {', or '.join(flags)}."
    if len(table.profile.seeds) == 1:
        yield "One seed says nothing about another: differences have no interval, and there are no ties and no flags."
    for shots, reference in worth.reference.items():
        rows = [worth.rows[line.method, shots, group] for line in table.at(shots) if not line.control]
        found = [row.difference for row in rows if row.difference and row.difference.spreads]
        if found:
            lettered = sum(bool(row.letters) for row in rows)
            pairs = max(1, comb(lettered, 2))
            alone, letters = (span([gap.detectable(1 - (1 - LEVEL) / n) for gap in found]) for n in (1, pairs))
            among = f"; by the letters, as the first of {pairs} pairs, from {letters}" if pairs > 1 else ""
            yield (
                f"{at_shots(shots)}: a true difference to {reference} in {group}, asked about alone, would be found "
                f"with 80 % probability from {alone} points on{among}. More seeds find smaller ones."
            )
        if (shots, group) in worth.ranks:
            names, ranks = worth.ranks[shots, group]
            each = ", ".join(f"{name} {rank:.1f}" for name, rank in zip(names, ranks.mean, strict=True))
            test = "" if ranks.p is None else f"Friedman p = {ranks.p:.2g}, "
            yield (
                f"{at_shots(shots)}: average rank over the {len(tasks)} {group} ({test}ranks closer than "
                f"{ranks.gap:.1f} are not told apart, Nemenyi): {each}."
            )
    for why, number in Counter(worth.unusable.values()).items():
        yield f"{number} cells are in no difference: {why}."


def span(sizes: Sequence[float]) -> str:
    """1.6 to 3.9, x 100"""
    return " to ".join(dict.fromkeys(f"{100 * size:.1f}" for size in (min(sizes), max(sizes))))


def apart(standing: Standing) -> str:
    """-2.1 ±1.3 b, with ‡ in place of a letter where the line has no rank."""
    gap, text = standing.difference, ""
    if gap:
        half = gap.half()
        text = f"{hundred(gap.mean):+.1f}" + (" (1 seed)" if half is None else f" ±{hundred(half):.1f}")
    return f"{text} {FLAG if standing.flag else standing.letters}".strip()


def gap(standing: Standing) -> list[float | None]:
    """The paired difference to the reference as numbers: GAP."""
    if standing.difference is None:
        return [None] * len(GAP)
    found = standing.difference
    low, high = found.interval() or (None, None)
    return [found.mean, low, high, standing.p, found.seeds, found.detectable()]
