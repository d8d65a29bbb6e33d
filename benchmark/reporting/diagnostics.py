"""What the sources taught, to look at: curves a method watches, and what it finds in its weights, a picture per method.

Drawn from the result files of source stages alone. A method says what there is: `watched` in what its training step
returns, and `Method.inside`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmark.reporting.figures import COLOURS, STYLE

ALL_SOURCES = "sources"  # the stage that left no source out
PANELS_PER_ROW = 3  # panels beside each other
TITLE_LINE_LENGTH = 44  # characters of a line of a title


def draw_diagnostics(results: Iterable[Mapping[str, Any]], folder: Path) -> list[Path]:
    """inside-<method>.png for each method whose source stage has something to show; of its first seed."""
    found: dict[str, Mapping[str, Any]] = {}
    done = (result for result in results if result["state"] == "done" and result["cell"]["task"] == ALL_SOURCES)
    for result in sorted(done, key=lambda result: result["cell"]["seed"]):
        if result.get("inside", {}).get("found") or result["training"].get("watched"):
            found.setdefault(result["cell"]["method"], result)
    return [
        draw_method_diagnostics(result, folder / f"inside-{name.replace(':', '.')}.png")
        for name, result in found.items()
    ]


def draw_method_diagnostics(result: Mapping[str, Any], path: Path) -> Path:
    """Curves by kind, numbers by layer, tasks by tasks, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds: dict[str, dict[str, Sequence]] = {}
    for name, curve in result["training"].get("watched", {}).items():
        kinds.setdefault(name.partition(",")[0], {})[name] = curve
    found = result["inside"]["found"]
    with matplotlib.rc_context(STYLE):
        panels = len(kinds) + len(found)
        wide, high = min(PANELS_PER_ROW, panels), -(-panels // PANELS_PER_ROW)
        figure, axes = pyplot.subplots(
            high, wide, figsize=(4.6 * wide, 4.2 * high), layout="constrained", squeeze=False
        )
        places = iter(axes.flat)
        for kind, own in kinds.items():
            draw_curves(next(places), kind, own)
        for title, values in found.items():
            if isinstance(values[0], list):
                draw_heatmap(next(places), title, values, result["inside"]["tasks"])
            else:
                draw_bars(next(places), title, values)
        for spare in places:
            spare.set_visible(False)
        figure.suptitle(f"{result['cell']['method']}: what the sources taught, seed {result['cell']['seed']}")
        figure.savefig(path, dpi=140, facecolor="white")
        pyplot.close(figure)
    return path


def draw_curves(axes, title: str, curve_by_name: Mapping[str, Sequence]) -> None:
    for colour, (name, curve) in zip(COLOURS, curve_by_name.items(), strict=False):
        axes.plot(*zip(*curve, strict=True), color=colour, label=name)
    axes.set_xlabel("step of the source stage")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    if len(curve_by_name) > 1:
        axes.legend(frameon=False, fontsize=8)


def draw_bars(axes, title: str, values: Sequence[float]) -> None:
    axes.bar(range(len(values)), values, color=COLOURS[0])
    axes.set_xticks(range(len(values)))
    axes.set_xlabel("layer")
    axes.set_title(fill(title, TITLE_LINE_LENGTH), fontsize=10)


def draw_heatmap(axes, title: str, similarities: Sequence[Sequence[float]], tasks: Sequence[str]) -> None:
    """Tasks x tasks, those alike beside each other."""
    order = order_by_similarity(similarities)
    shown = [[similarities[row][column] for column in order] for row in order]
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1)
    names = [tasks[place] for place in order]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for row, numbers in enumerate(shown):
        for column, number in enumerate(numbers):
            ink = "white" if abs(number) > 0.6 else "black"
            axes.text(column, row, f"{number:.2f}", ha="center", va="center", fontsize=7, color=ink)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title(fill(title, TITLE_LINE_LENGTH), fontsize=10)


def order_by_similarity(similarities: Sequence[Sequence[float]]) -> list[int]:
    """The order of leaves of an average-linkage tree over 1 - similarity."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(similarities) < 3:
        return list(range(len(similarities)))
    far = [
        1 - (similarities[a][b] + similarities[b][a]) / 2
        for a in range(len(similarities))
        for b in range(a + 1, len(similarities))
    ]
    return leaves_list(linkage([max(0.0, x) for x in far], "average")).tolist()
