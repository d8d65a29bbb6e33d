"""What the page shows, as plain numbers: from the board and its standings, and cell by cell from the result files."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from benchmark import catalogue, variance
from benchmark.grid import TARGET, role
from benchmark.profile import Profile
from benchmark.shots import crossings as crossed
from benchmark.standing import Standings
from benchmark.stats import cliques
from benchmark.store import Result, load
from benchmark.table import Board, Figure, Line, hundred

POINTS = 60  # of a learning curve
CURVES = 1200  # cells whose learning curves the page carries: the first seeds'
UNSTABLE = 0.2  # intervals of one task wider than this, each way, are pointed out
RISING = 0.02  # a mean gain on dev at the last look of more than this: training ended early
REST = ("load", "tokenise", "save", "rest")


class Facts(NamedTuple):
    """Of the cells, read from their files once."""

    curves: list[dict[str, Any]]
    cells: list[list[Any]]
    left_out: int  # cells without a curve here, because there are so many
    rising: dict[tuple[str, int | str], list[float]]  # (method, shots) -> what dev gained at the last look, by cell
    environment: dict[str, Any]  # of the newest
    commits: list[str]
    devices: list[str]
    when: tuple[str, str] | None  # first and last day


def rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


# -------------------------------------------------------------------- numbers of a selection of tasks


def score(line: Line, name: str, worth: Standings) -> list[Any] | None:
    """[mean, half, seeds, difference, its half, p, letters, flag], x 100; nothing where there is no number."""
    figure = at(line, name)
    if figure is None:
        return None
    standing = worth.rows[line.method, line.shots, name]
    gap = standing.difference
    half = gap.half() if gap else None
    return [
        hundred(figure.mean),
        None if figure.half is None else hundred(figure.half),
        figure.seeds,
        hundred(gap.mean) if gap else None,
        None if half is None else hundred(half),
        rounded(standing.p, 5),
        standing.letters,
        standing.flag,
    ]


def scores(wide: Board, worth: Standings) -> dict[str, dict[str, dict[str, list]]]:
    """shots -> selection or task -> method -> score."""
    names = dict.fromkeys((*wide.groups, *wide.metrics))
    found: dict = {}
    for line in wide.lines:
        for name in names:
            if values := score(line, name, worth):
                found.setdefault(str(line.shots), {}).setdefault(name, {})[line.method] = values
    return found


def spread(line: Line, worst: float = UNSTABLE) -> str:
    """A task whose interval is far wider than a reader would guess."""
    wide = {task: figure.half for task, figure in line.tasks.items() if figure and figure.half and figure.half > worst}
    if not wide:
        return ""
    task = max(wide, key=wide.get)
    more = f", and {len(wide) - 1} more" if len(wide) > 1 else ""
    return f"seeds far apart: ±{100 * wide[task]:.0f} on {task}{more}"


def cautions(line: Line, rising: Mapping[tuple[str, int | str], Sequence[float]]) -> list[str]:
    """What to keep in mind about a row beside its flag."""
    found = [text] if (text := spread(line)) else []
    gains = rising.get((line.method, line.shots), ())
    if gains and fmean(gains) > RISING:
        found.append(f"dev +{100 * fmean(gains):.1f} at the last look: more steps may help")
    if line.done < line.due:
        found.append(f"{line.due - line.done} of {line.due} cells missing")
    return found


# -------------------------------------------------------------------- costs, ranks, curves over shots


def costs(line: Line, phases: Mapping[tuple[str, int | str], Mapping[str, float]]) -> dict[str, Any]:
    share = max(0.0, line.amortised - line.seconds) if line.amortised is not None and line.seconds is not None else 0.0
    own = dict(phases.get((line.method, line.shots), {}))
    return {
        "trained": rounded(line.trained, 0),
        "seconds": rounded(line.seconds),
        "amortised": rounded(line.amortised if line.amortised is not None else line.seconds),
        "whole": rounded(line.whole),
        "bytes": line.bytes,
        "done": line.done,
        "due": line.due,
        "phases": {name: rounded(value, 3) for name, value in {**own, "sources' share": share}.items() if value},
    }


def phases(done: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int | str], dict[str, float]]:
    """(method, shots) -> mean seconds of its cells by phase."""
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in done:
        spent = result["cost"]["seconds"]
        own = {"train": spent.get("train", 0.0), "dev": spent.get("dev", 0.0), "test": spent.get("test", 0.0)}
        own["start and end"] = sum(spent.get(name, 0.0) for name in REST)
        for phase, seconds in own.items():
            found[result["cell"]["method"], result["cell"]["shots"]][phase].append(seconds)
    return {key: {phase: fmean(values) for phase, values in own.items()} for key, own in found.items()}


def ranking(worth: Standings) -> dict[str, dict[str, dict[str, Any]]]:
    """shots -> selection -> its critical-difference diagram: methods in order, and bars over those not told apart."""
    found: dict = {}
    for (shots, name), (names, ranks) in worth.ranks.items():
        found.setdefault(str(shots), {})[name] = {
            "methods": names,
            "mean": [round(rank, 3) for rank in ranks.mean],
            "gap": round(ranks.gap, 3),
            "p": ranks.p,
            "tasks": ranks.tasks,
            "bars": cliques(ranks),
        }
    return found


def crossings(wide: Board, worth: Standings) -> dict[str, list[list[Any]]]:
    """Selection or task -> [method, method, *shots.Crossing] where the curves of two trained methods cross."""
    lines = {(line.method, line.shots): line for line in wide.lines if not line.control}
    shots = list(dict.fromkeys(line.shots for line in wide.lines))
    found: dict[str, list[list[Any]]] = {}
    for name in dict.fromkeys((*wide.groups, *wide.metrics)):
        tasks = wide.groups.get(name, name)
        for a, b in combinations(dict.fromkeys(method for method, _ in lines), 2):
            if turns([(at(lines[a, k], name), at(lines[b, k], name)) for k in shots]):
                gaps = {k: worth.kept.difference((a, (k,)), (b, (k,)), tasks) for k in shots}
                found.setdefault(name, []).extend([a, b, *one] for one in crossed(gaps))
    return {name: own for name, own in found.items() if own}


def at(line: Line, name: str) -> Figure | None:
    return line.averages.get(name) or line.tasks.get(name)


def turns(pairs: Iterable[tuple[Figure | None, Figure | None]]) -> bool:
    """Whether two curves may cross: a look at their means, where both have the same seeds, spares most comparisons."""
    known = [(a, b) for a, b in pairs if a and b]
    signs = {a.mean > b.mean for a, b in known if a.mean != b.mean}
    return len(signs) > 1 or any(a.seeds != b.seeds for a, b in known)


def parts(cells: Iterable[Any], results: Iterable[Mapping[str, Any]]) -> list[tuple[str, int | str, str, list[float]]]:
    """(method, shots, part, [deviation, low, high] x 100) where runs isolate more than the whole."""
    found = []
    for (method, shots), tasks in variance.runs(cells, results).items():
        split = variance.split(tasks)
        if set(split) - {variance.TOGETHER}:
            found += [
                (method, shots, variance.PARTS[name], [100 * value for value in one.deviation()])
                for name, one in split.items()
            ]
    return found


# -------------------------------------------------------------------- cells


def facts(results: Sequence[Result]) -> Facts:
    """One pass over the files: what is long in them is not in the index."""
    found = Facts([], [], 0, {}, {}, [], [], None)
    commits, devices, days, left_out = {}, {}, [], 0
    for result in sorted(results, key=lambda one: (str(one["cell"]["seed"]), one["times"]["finished"])):
        whole = load(result.path) or result
        at, environment = result["cell"], whole.get("environment", {})
        commits[environment.get("commit")] = devices[environment.get("device")] = None
        days.append(result["times"]["finished"][:10])
        found.environment.update(environment)
        found.cells.append(row(result))
        training = whole.get("training")
        if result["state"] != "done" or not training or not training["loss"]:
            continue
        if at["stage"] == TARGET and len(training["dev"]) > 1 and not training["stopped"]:
            before, end = (score for _, score, *_ in training["dev"][-2:])
            found.rising.setdefault((at["method"], at["shots"]), []).append(end - before)
        if len(found.curves) < CURVES:
            found.curves.append(curve(result, training))
        else:
            left_out += 1
    return found._replace(
        left_out=left_out,
        commits=[one[:10] for one in commits if one],
        devices=[one for one in devices if one],
        when=(min(days), max(days)) if days else None,
    )


def row(result: Mapping[str, Any]) -> list[Any]:
    """[method, task, shots, seed, stage, state, score, seconds, identity, reason]"""
    value = result.get("metrics", {}).get("test", {}).get(result["task"]["metric"])
    reason = (result.get("error") or {}).get("reason", "")
    return [*result["cell"].values(), result["state"], rounded(None if value is None else 100 * value),
            rounded(result["times"]["seconds"], 1), result["identity"][:16], reason]  # fmt: skip


def curve(result: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    every = max(1, -(-len(training["loss"]) // POINTS))
    loss = [[step, round(value, 3)] for step, value in training["loss"][every - 1 :: every]]
    dev = [[step, round(100 * value, 1)] for step, value, *_ in training["dev"]]
    cell = result["cell"]
    return {"m": cell["method"], "t": cell["task"], "k": str(cell["shots"]), "s": cell["seed"], "g": cell["stage"],
            "loss": loss, "dev": dev}  # fmt: skip


def newest(results: Iterable[Mapping[str, Any]]) -> dict[tuple, Mapping[str, Any]]:
    """(method, task, shots, seed) -> the done result of the table."""
    return {
        tuple(result["cell"][name] for name in ("method", "task", "shots", "seed")): result
        for result in results  # oldest first
        if result["state"] == "done" and result["cell"]["stage"] == TARGET
    }


def tasks(profile: Profile, wide: Board) -> dict[str, dict[str, Any]]:
    return {
        name: {"role": role(profile, name)}
        | {key: catalogue.task(name)[key] for key in ("family", "form", "metric", "licence")}
        for name in wide.metrics
    }


def methods(profile: Profile) -> dict[str, dict[str, Any]]:
    """Facts of each row, for points and words."""
    found = {}
    for name in profile.methods:
        fact = catalogue.method(name)
        sources = bool(fact["parent"]) or any(stage["on"] == "sources" for stage in fact["stages"])
        found[name] = {"what": fact["what"], "paper": fact["paper"], "control": not fact["trains"],
                       "fixed": fact["fixed"], "sources": sources and fact["trains"]}  # fmt: skip
    return found
