"""Figures of source-stage diagnostics: logged training curves and weight statistics, one figure per method.

They are drawn from the result files of source stages only. A method provides the data: the curves that its training
step logs, and the statistics that it computes from its weights after the source stage.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmark.reporting.figures import COLOURS, STYLE
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import SourceDiagnostics

ALL_SOURCES = "sources"  # task name of the stage that leaves no source out
PANELS_PER_ROW = 3
TITLE_LINE_LENGTH = 44  # characters


def draw_diagnostics(results: Iterable[CellResult], folder: Path) -> list[Path]:
    """Write inside-<method>.png for each method with diagnostics, from its first seed; return the paths."""
    result_by_method: dict[str, CellResult] = {}
    source_stages = (result for result in results if result.source_diagnostics and result.cell.task == ALL_SOURCES)
    for result in sorted(source_stages, key=lambda result: result.cell.seed):
        training = result.details.training
        statistics = result.source_diagnostics.statistics if result.source_diagnostics else {}
        if statistics or (training and training.diagnostics):
            result_by_method.setdefault(result.cell.method, result)
    return [
        draw_method_diagnostics(result, folder / f"inside-{name.replace(':', '.')}.png")
        for name, result in result_by_method.items()
    ]


def draw_method_diagnostics(result: CellResult, path: Path) -> Path:
    """Draw training curves, per-layer bars and task-similarity heatmaps as panels of one figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds: dict[str, dict[str, Sequence]] = {}
    training = result.details.training
    for name, curve in (training.diagnostics if training else {}).items():
        kinds.setdefault(name.partition(",")[0], {})[name] = curve
    diagnostics = result.source_diagnostics or SourceDiagnostics((), {})
    with matplotlib.rc_context(STYLE):
        num_panels = len(kinds) + len(diagnostics.statistics)
        columns = min(PANELS_PER_ROW, num_panels)
        rows = -(-num_panels // PANELS_PER_ROW)
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(4.6 * columns, 4.2 * rows), layout="constrained", squeeze=False
        )
        panels = iter(axes.flat)
        for kind, curve_by_name in kinds.items():
            draw_curves(next(panels), kind, curve_by_name)
        for title, values in diagnostics.statistics.items():
            if isinstance(values[0], list):
                draw_heatmap(next(panels), title, values, diagnostics.tasks)
            else:
                draw_bars(next(panels), title, values)
        for unused in panels:
            unused.set_visible(False)
        figure.suptitle(f"{result.cell.method}: source-stage diagnostics, seed {result.cell.seed}")
        figure.savefig(path, dpi=140, facecolor="white")
        pyplot.close(figure)
    return path


def draw_curves(axes: Any, title: str, curve_by_name: Mapping[str, Sequence]) -> None:
    """Draw curves of (step, value) points into one panel."""
    for colour, (name, curve) in zip(COLOURS, curve_by_name.items(), strict=False):
        axes.plot(*zip(*curve, strict=True), color=colour, label=name)
    axes.set_xlabel("step of the source stage")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    if len(curve_by_name) > 1:
        axes.legend(frameon=False, fontsize=8)


def draw_bars(axes: Any, title: str, values: Sequence[float]) -> None:
    """Draw one bar per layer."""
    axes.bar(range(len(values)), values, color=COLOURS[0])
    axes.set_xticks(range(len(values)))
    axes.set_xlabel("layer")
    axes.set_title(fill(title, TITLE_LINE_LENGTH), fontsize=10)


def draw_heatmap(axes: Any, title: str, similarities: Sequence[Sequence[float]], tasks: Sequence[str]) -> None:
    """Draw task similarities [tasks, tasks] in -1..1, with similar tasks adjacent."""
    order = order_by_similarity(similarities)
    shown = [[similarities[row][column] for column in order] for row in order]
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1)
    names = [tasks[index] for index in order]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for row, numbers in enumerate(shown):
        for column, number in enumerate(numbers):
            text_colour = "white" if abs(number) > 0.6 else "black"
            axes.text(column, row, f"{number:.2f}", ha="center", va="center", fontsize=7, color=text_colour)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title(fill(title, TITLE_LINE_LENGTH), fontsize=10)


def order_by_similarity(similarities: Sequence[Sequence[float]]) -> list[int]:
    """Leaf order of an average-linkage tree over the distances 1 - similarity (symmetrised)."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(similarities) < 3:
        return list(range(len(similarities)))
    distances = [
        1 - (similarities[a][b] + similarities[b][a]) / 2
        for a in range(len(similarities))
        for b in range(a + 1, len(similarities))
    ]
    return leaves_list(linkage([max(0.0, distance) for distance in distances], "average")).tolist()
