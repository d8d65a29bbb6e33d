"""The page in words and rows: what the template prints, and the data that the scripts read."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark import report
from benchmark.page import again, examples, gather, selection
from benchmark.profile import STREAMS
from benchmark.reading import Read
from benchmark.result import backbone_title
from benchmark.standing import Standings
from benchmark.table import Board, Line, at_shots

NAMED = 4  # methods that a sentence lists
COST_TITLES = {"trained": "trained parameters", "amortised": "seconds per cell, with its share of the sources",
               "bytes": "peak memory, bytes"}  # fmt: skip


def view(seen: Read, notes: Sequence[str], folder: Path, texts: bool) -> dict[str, Any]:
    """Everything the template asks for."""
    wide, worth, results = seen.wide, seen.worth, seen.results
    profile, done = wide.profile, gather.newest(results)
    facts, scores = gather.facts(results), gather.scores(wide, worth)
    shots = first_shots(wide)
    name = next(iter(wide.groups))
    groups, asked = selection.named(profile)
    lines = report.ranked(wide.at(shots))
    phases = gather.phases(done.values())
    methods = gather.methods(profile)
    moved = len(seen.every) > len(results) or len(profile.vary) < len(STREAMS)
    parts = gather.parts(seen.cells, seen.every) if moved else []  # else every seed moves all its streams
    cost = {str(k): {line.method: gather.costs(fixed_at(line), phases) for line in wide.at(k)} for k in options(wide)}
    cautious = {
        str(k): {line.method: gather.cautions(line, facts.rising) for line in wide.at(k)} for k in options(wide)
    }
    reference = {str(k): method for k, method in worth.reference.items()}
    a, b = compared(lines, reference[str(shots)])
    data: dict[str, Any] = {
        "scores": scores, "costs": cost, "cautions": cautious, "reference": reference, "asked": asked, "groups": groups,
        "methods": methods, "tasks": gather.tasks(profile, wide), "ranks": gather.ranking(worth),
        "crossings": gather.crossings(wide, worth), "curves": facts.curves, "cells": facts.cells,
        "examples": examples.collected(profile, wide, done, texts), "command": again.command(profile),
        "headlines": {str(k): headline(report.ranked(wide.at(k)), worth, k, name, wide) for k in options(wide)},
        "costTitles": COST_TITLES, "seeds": len(profile.seeds), "titles": {str(k): at_shots(k) for k in options(wide)},
        "default": {"shots": str(shots), "role": role_of(name), "family": selection.ANY, "a": a, "b": b,
                    "cost": "trained", "sort": "mean", "dir": "down", "task": ""},
    }  # fmt: skip
    return {
        "data": data, "drawn": bool(facts.cells), "profile": profile, "shots": str(shots), "group": name,
        "lines": lines, "scores": scores.get(str(shots), {}), "cost": cost[str(shots)],
        "cautions": cautious[str(shots)], "titles": data["titles"], "reference": reference[str(shots)],
        "methods": methods, "tasks": data["tasks"], "roles": roles(asked), "families": selection.families(profile),
        "headline": data["headlines"][str(shots)], "notes": list(notes),
        "ranks": data["ranks"].get(str(shots), {}).get(name), "ranked": any(data["ranks"].values()),
        "parts": parts, "pictures": pictures(folder),
        "failed": [cell for cell in facts.cells if cell[5] == "failed"], "facts": facts,
        "states": Counter(cell[5] for cell in facts.cells), "due": len(seen.cells), "command": data["command"],
        "backbone": backbone_title(profile.backbone.name), "points": points, "count": report.count,
        "memory": report.memory, "mark": report.MARK, "heat": heat, "sized": sized, "apart": apart,
    }  # fmt: skip


def options(wide: Board) -> list[int | str]:
    return list(dict.fromkeys(line.shots for line in wide.lines))


def first_shots(wide: Board) -> int | str:
    """The fewest shots at which something trained has a number; the first where nothing has."""
    own = [line.shots for line in wide.lines if not line.control and any(line.tasks.values())]
    return own[0] if own else wide.lines[0].shots


def fixed_at(line: Line) -> Line:
    """Cells that no shots change are kept under 0 shots."""
    return line._replace(shots=0) if line.fixed else line


def role_of(group: str) -> str:
    return next(role for role, title in selection.ROLES.items() if title == group)


def roles(asked: Mapping[str, str]) -> dict[str, str]:
    return {role: title for role, title in selection.ROLES.items() if f"{role}/{selection.ANY}" in asked}


def compared(lines: Sequence[Line], reference: str) -> tuple[str, str]:
    """The two methods that charts begin with: the reference, and the best of the others."""
    trained = [line.method for line in lines if not line.control and line.method != reference]
    others = trained or [line.method for line in lines if line.method != reference] or [reference]
    return reference, others[0]


def headline(lines: Sequence[Line], worth: Standings, shots: int | str, name: str, wide: Board) -> str:
    """The answer in a sentence, as strong as the numbers allow."""
    where = f"over {len(wide.groups[name])} {name} at {at_shots(shots)}"
    ranked = [line for line in lines if not line.control and line.averages.get(name)
              and not worth.rows[line.method, shots, name].flag]  # fmt: skip
    if not ranked:
        return f"No method has all of its cells {where} yet, so there is no order of them."
    top = ranked[0]
    said = report.points(top.averages[name])
    letters = {line.method: worth.rows[line.method, shots, name].letters for line in ranked}
    if top.averages[name].half is None:
        return (
            f"{top.method} has the highest mean {where}: {said}, from one seed. Another seed may say otherwise: run "
            "more before believing an order."
        )
    tied = [method for method, own in letters.items() if method != top.method and set(own) & set(letters[top.method])]
    if not letters[top.method]:
        alone = "no other is ranked" if len(ranked) == 1 else "how it differs from others is not known"
        return f"{top.method} has the highest mean {where}: {said}; {alone}."
    if not tied:
        return f"{top.method} is ahead of every other method {where}: {said}."
    others = tied[0] if len(tied) == 1 else f"{', '.join(tied[:-1])} and {tied[-1]}"
    others = others if len(tied) <= NAMED else f"{len(tied)} others"
    return f"{top.method} has the highest mean {where}, {said}; {others} cannot be told apart from it."


# -------------------------------------------------------------------- cells of the tables


def points(score: Sequence[Any] | None, due: int) -> str:
    """66.9 ±2.6, with what is missing of an interval or of seeds."""
    if not score:
        return ""
    mean, half, seeds = score[:3]
    spread = f" ±{half:.1f}" if half is not None else ""
    return f"{mean:.1f}{spread}" + (f" ({seeds}/{due})" if seeds < due else "")


def apart(score: Sequence[Any] | None) -> str:
    """-2.1 ±1.3"""
    if not score or score[3] is None:
        return ""
    return f"{score[3]:+.1f}" + ("" if score[4] is None else f" ±{score[4]:.1f}")


def sized(scores: Mapping[str, Sequence[Any]], method: str) -> str:
    """Where a score's interval lies between the lowest and the highest end of one in the table, 0 to 100, as CSS."""
    if method not in scores:
        return "display:none"
    spans = {name: (score[0] - (score[1] or 0.0), score[0] + (score[1] or 0.0)) for name, score in scores.items()}
    low, high = max(0.0, min(one for one, _ in spans.values())), min(100.0, max(one for _, one in spans.values()))
    places = (spans[method][0], scores[method][0], spans[method][1])
    ends = [100 * (min(high, max(low, value)) - low) / (high - low) if high > low else 50.0 for value in places]
    return ";".join(f"--{name}:{end:.1f}" for name, end in zip(("low", "mean", "high"), ends, strict=True))


def heat(scores: Mapping[str, Sequence[Any]], method: str) -> str:
    """How a method stands among the others on a task, 0 to 1, as CSS."""
    if method not in scores:
        return ""
    means = [score[0] for score in scores.values()]
    low, high = min(means), max(means)
    return f"--heat:{(scores[method][0] - low) / (high - low) if high > low else 0.5:.2f}"


def pictures(folder: Path) -> list[dict[str, str]]:
    """What methods learned from their sources, drawn beside the page; small enough to be carried in it."""
    import io

    from PIL import Image

    found = []
    for path in sorted(folder.glob("inside-*.png")):
        sink = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").quantize(256).save(sink, "PNG", optimize=True)
            size = image.size
        name = path.stem.removeprefix("inside-")
        data = base64.b64encode(sink.getvalue()).decode()
        found.append({"method": name, "data": data, "width": size[0], "height": size[1]})
    return found
