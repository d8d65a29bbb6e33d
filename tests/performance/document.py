"""docs/performance.md: tables between markers, made from the figures in docs/bench; the prose around them stays."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.results.files import write_file_atomically
from tasks.core.types import UsageError
from tests.performance.runners import PHASES
from tests.performance.targets import TARGETS, Parts, by_method, spoken

DOCS = Path(__file__).parents[2] / "docs"
MARKS = "<!-- bench:{} -->\n", "<!-- /bench:{} -->"
NONE = "not measured"
Row = Sequence[str]


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Every part's file, by the part's name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {said["part"]: said for said in found if "part" in said and "figures" in said}


def save(folder: Path, part: str, said: Mapping[str, Any]) -> None:
    path = folder / f"{part.replace(' ', '-')}.json"
    write_file_atomically(path, (json.dumps({"part": part, **said}, ensure_ascii=False, indent=1) + "\n").encode())


def update(page: Path, folder: Path) -> None:
    """Make all tables of the page anew."""
    files = read(folder)
    parts = {name: said["figures"] for name, said in files.items()}
    text = page.read_text(encoding="utf-8")
    for name, make in SECTIONS.items():
        text = between(text, name, machines(files) if name == "machine" else make(parts))
    write_file_atomically(page, text.encode())


def between(text: str, name: str, content: str) -> str:
    """The text with this between the markers of this name."""
    first, last = (mark.format(name) for mark in MARKS)
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise UsageError(
            f"docs/performance.md: the markers of {name} are not there, once each; put {first.strip()} and {last} back"
        )
    return re.sub(f"(?s){re.escape(first)}.*?{re.escape(last)}", lambda _: f"{first}{content.strip()}\n{last}", text)


def table(header: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return NONE + "\n"
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# -------------------------------------------------------------------- the tables


def machines(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Where each part was measured: one line for all that agree."""
    same: dict[tuple, list[str]] = {}
    for name, said in files.items():
        m = said["machine"]
        packages = ", ".join(f"{key} {value}" for key, value in m["packages"].items())
        where = (m["device"].removeprefix("cpu: "), str(m["cores"]), m["system"], f"Python {m['python']}, {packages}",
                 (m["commit"] or "no commit")[:10] + (" and changes" if m["dirty"] else ""), said["form"])  # fmt: skip
        same.setdefault(where, []).append(f"{name} ({m['load']:.1f})")
    header = ("parts (load when it began)", "processor", "cores", "system", "versions", "commit", "form")
    return table(header, [(", ".join(names), *where) for where, names in same.items()])


def targets(parts: Parts) -> str:
    rows, missed = [], []
    for target in TARGETS:
        figure = target.measured(parts)
        verdict = NONE if figure is None else "met" if target.met(figure) else "**missed**"
        rows.append((target.what, target.asked, NONE if figure is None else spoken(figure, target.unit), verdict))
        if figure is not None and not target.met(figure) and target.profile in parts:
            missed.append(target)
    text = table(("figure", "target", "measured", ""), rows)
    if missed:
        text += "\nWhere the time goes, for those missed:\n\n"
    for name in dict.fromkeys(target.profile for target in missed):
        text += operations(parts[name]) + "\n"
    return text


def operations(figures: Mapping[str, Any]) -> str:
    """A profile: the largest operations of one cell of each method."""
    lines = []
    for method, said in figures["methods"].items():
        spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in said["seconds"].items())
        top = ", ".join(f"{row['operation']} {row['share']:.0%}" for row in said["operations"])
        lines.append(f"- {method} on {figures['task']}, {figures['backbone']}: {spent} (profiled); {top}\n")
    return "".join(lines)


def compared(prefix: str) -> Callable[[Parts], str]:
    """Both sides of every backbone, with the peer as 1.0."""

    def make(parts: Parts) -> str:
        rows = []
        for name, figures in parts.items():
            if not name.startswith(prefix):
                continue
            for side, said in figures["sides"].items():
                kind, _, processes = side.partition("/")
                base = figures["sides"].get(f"naive/{processes}")
                gain = f"{said['cells_per_hour'] / base['cells_per_hour']:.1f}x" if base else ""
                rows.append([
                    f"{name.removeprefix(prefix).strip()}, {kind}: {' '.join(said['methods'])}", processes, str(said["cells"]), f"{said['cells_per_hour']:.0f}", gain,
                    *(f"{said['phases'][phase]:.2f}" for phase in PHASES), f"{said['scoring_share']:.0%}",
                    "" if said["padded_share"] is None else f"{said['padded_share']:.1%}", f"{said['peak_bytes'] / 2**20:.0f} MB",
                ])  # fmt: skip
        heads = ("side", "processes", "cells", "cells/h", "gain", *(f"{name} s" for name in PHASES))
        return table((*heads, "steps and scoring", "padded", "memory"), rows)

    return make


def agreement(parts: Parts) -> str:
    """Scores of the sides beside each other: one draw and one start are not another's, so only alike."""
    rows = []
    for name, figures in parts.items():
        if not name.startswith("few-shot"):
            continue
        kinds = {side.partition("/")[0]: said for side, said in figures["sides"].items()}
        for cell in next(iter(kinds.values()))["scores"]:
            values = [
                f"{100 * kinds[kind]['scores'][cell]:.1f}" if kind in kinds else ""
                for kind in ("naive", "solo", "packed")
            ]
            rows.append((f"{name.removeprefix('few-shot ')}, {cell}", *values))
    return table(("mean score of cells", "naive", "solo", "packed"), rows)


def full_methods(parts: Parts) -> str:
    """The gain of each method, of the backbones where both sides are through."""
    rows = []
    for name, figures in parts.items():
        if name.startswith("full ") and len(figures["sides"]) == 2:
            rows += [
                (f"{figures['backbone']}, {method}", f"{gain:.1f}x") for method, gain in by_method(figures).items()
            ]
    return table(("full-data cells", "gain"), rows)


def scoring(parts: Parts) -> str:
    rows = [
        (f"{said['backbone']}, {name}", str(one["labels"]), str(one["rows"]), f"{one['naive_seconds']:.2f} s", f"{one['suite_seconds']:.3f} s",
         f"{one['ratio']:.1f}x", f"{one['same_predictions']:.1%}", f"{one['padded_share']:.1%}")
        for part, said in parts.items() if part.startswith("scoring") for name, one in said["tasks"].items()
    ]  # fmt: skip
    return table(("backbone, task", "labels", "rows", "naive", "suite", "gain", "same predictions", "padded"), rows)


def curves(parts: Parts) -> str:
    """Cells per hour along one axis at a time."""
    text = ""
    for part, axis in (("packs", "most cells in a pack"), ("sizes", "backbone"), ("grids", "tasks x seeds")):
        said = parts.get(part)
        rows = list(_curve(said)) if said else []
        text += table((axis, "cells/h", "against the first"), rows) + "\n"
    return text


def _curve(said: Mapping[str, Any]) -> Iterator[Row]:
    first = next(iter(said["per_hour"].values()))["cells_per_hour"]
    for value, one in said["per_hour"].items():
        yield value, f"{one['cells_per_hour']:.0f}", f"{one['cells_per_hour'] / first:.2f}"


def plans(parts: Parts) -> str:
    grids = parts["plan"]["grids"] if "plan" in parts else []
    names = list(dict.fromkeys(name for grid in grids for name in grid["seconds"]))
    rows = [
        (f"{grid['cells']:,}", *(f"{grid['seconds'][name]:.1f} s" if name in grid["seconds"] else "" for name in names))
        for grid in grids
    ]
    return table(("cells", *names), rows)


SECTIONS: dict[str, Callable[[Parts], str]] = {
    "machine": lambda parts: "",  # made from the files themselves
    "targets": targets,
    "few-shot": compared("few-shot"),
    "agreement": agreement,
    "full": compared("full"),
    "full-methods": full_methods,
    "scoring": scoring,
    "curves": curves,
    "plan": plans,
}
