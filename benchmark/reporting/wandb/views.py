"""Builds the W&B workspace and report: panels over the tables of one summary run, with wandb-workspaces.

All panels read the summary run, so they do not depend on how many runs W&B can draw. Offline, both views are written to
one JSON file in W&B's storage format; online, they are saved under names derived from the summary run's id, so that
saving again replaces them.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.results.files import write_file_atomically

REQUIRED_PACKAGE = "wandb-workspaces"
VIEWS_FILE = "wandb.json"  # in the report folder
FULL_WIDTH = 24  # columns of a report's panel grid
HALF_WIDTH = 12
PANEL_HEIGHT = 10
LEADERBOARD_TEXT = (
    "Mean over the {} x 100, with its 95 % confidence interval over seeds; `difference` is the paired difference to "
    "the reference. Methods that share a letter are not significantly different. An average stays empty until all of "
    "its cells are done. Below each leaderboard: the scores of every task."
)
PARETO_TEXT = (
    "Score ({}) against log10 of the trained parameters. `pareto` in a leaderboard marks the methods that no other "
    "beats with at most as many trained parameters."
)
SHOT_CURVES_TEXT = "Score against log10 of the number of training examples, mean over cells."
COST_TEXT = (
    "Seconds per cell; `seconds_amortised` in a leaderboard adds the share of the source prompts and stages that the "
    "cell depends on."
)
LEARNING_CURVES_TEXT = (
    "Means over all cells of a method; a cell that stopped early keeps its last value. The curves of a single cell are "
    "in its run (group: the grid, job type: the method)."
)
DIFFERENCES_TEXT = (
    "`difference_p` is corrected for the number of methods (Holm); `detectable` is the true difference that a grid of "
    "this size detects with 80 % probability."
)


class ViewContents(NamedTuple):
    """Contents of the workspace and the report: texts, and names of the tables and images of the summary run."""

    project: str
    summary_run_id: str
    title: str
    description: str
    primary_average: str  # the first average, by which leaderboards are sorted
    shots: Sequence[int | str]
    table_names: Sequence[str]
    image_keys: Sequence[str]


class Section(NamedTuple):
    """A section of the workspace and of the report."""

    title: str
    text: str
    panels: list[Any]


def is_installed() -> bool:
    """Return whether wandb-workspaces is installed."""
    return find_spec("wandb_workspaces") is not None


def build_sections(contents: ViewContents) -> Iterator[Section]:
    """Yield the sections with new panels; workspace and report must not share panel objects."""
    shots = contents.shots
    average = contents.primary_average
    diagnostics = [name for name in contents.image_keys if name.startswith("inside/")]
    overview = [_build_image_panel([name]) for name in contents.image_keys if name not in diagnostics]
    boards = [_build_table_panel(f"{kind}/{n}") for n in shots for kind in ("leaderboard", "matrix")]
    yield Section("Leaderboard", LEADERBOARD_TEXT.format(average), overview + boards)
    pareto = {"x": "log10_trained_parameters", "y": "mean"}
    charts = [_build_chart_panel("scatter", f"leaderboard/{n}", f"{average}, {n} shots", pareto) for n in shots]
    yield Section("Pareto", PARETO_TEXT.format(average), charts)
    line = {"x": "log10_examples", "y": average.replace(" ", "_"), "stroke": "method"}
    yield Section(
        "Shot curves",
        SHOT_CURVES_TEXT,
        [_build_chart_panel("line", "shots", f"{average} by examples", line), _build_table_panel("shots")],
    )
    bar = {"label": "method", "value": "seconds_per_cell"}
    charts = [_build_chart_panel("bar", f"leaderboard/{n}", f"seconds per cell, {n} shots", bar) for n in shots]
    yield Section("Cost", COST_TEXT, [*charts, _build_table_panel("cost")])
    charts = [
        _build_chart_panel("line", f"curves/{n}", f"{label}, {n} shots", {"x": "step", "y": name, "stroke": "method"})
        for n in shots
        for name, label in (("dev_score", "dev score"), ("loss", "training loss"))
    ]
    yield Section("Learning curves", LEARNING_CURVES_TEXT, charts)
    comparisons = [name for name in contents.table_names if name.partition("/")[0] in ("differences", "ties")]
    yield Section("Differences and ties", DIFFERENCES_TEXT, [_build_table_panel(name) for name in comparisons])
    if diagnostics:
        yield Section(
            "Diagnostics of the source stages",
            "Training curves and weights of the source stages.",
            [_build_image_panel(diagnostics)],
        )


def _build_table_panel(name: str) -> Any:
    """Build a panel that shows one table of the summary run."""
    import wandb_workspaces.reports.v2 as reports

    return reports.WeavePanelSummaryTable(table_name=name, layout=reports.Layout(w=FULL_WIDTH, h=PANEL_HEIGHT))


def _build_chart_panel(preset: str, table: str, title: str, fields: dict[str, str]) -> Any:
    """Build one of W&B's built-in charts over a table of the summary run."""
    import wandb_workspaces.reports.v2 as reports

    return reports.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=f"wandb/{preset}/v0",
        chart_fields=fields,
        chart_strings={"title": title},
        layout=reports.Layout(w=HALF_WIDTH, h=PANEL_HEIGHT),
    )


def _build_image_panel(keys: Sequence[str]) -> Any:
    """Build a panel that shows images of the summary run below each other."""
    import wandb_workspaces.reports.v2 as reports

    return reports.MediaBrowser(
        media_keys=list(keys), num_columns=1, layout=reports.Layout(w=FULL_WIDTH, h=PANEL_HEIGHT + 4)
    )


# -------------------------------------------------------------------- workspace and report


def build_workspace(contents: ViewContents, entity: str) -> Any:
    """Build the workspace: all sections, with a run set that contains only the summary run."""
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    sections = [
        workspaces.Section(
            name=section.title,
            panels=[reports.MarkdownPanel(markdown=section.text), *section.panels],
            is_open=index < 3,
            layout_settings=workspaces.SectionLayoutSettings(columns=2, rows=-(-(1 + len(section.panels)) // 2)),
        )
        for index, section in enumerate(build_sections(contents))
    ]
    summary_only = workspaces.RunsetSettings(filters=expr.And(expr.Metric("ID") == contents.summary_run_id))
    return workspaces.Workspace(
        entity=entity, project=contents.project, name=contents.title, sections=sections, runset_settings=summary_only
    )


def build_wandb_report(contents: ViewContents, entity: str) -> Any:
    """Build the report: the same sections as one page."""
    import wandb_workspaces.reports.v2 as reports
    from wandb_workspaces import expr

    blocks = [reports.TableOfContents(), reports.P(contents.description)]
    for section in build_sections(contents):
        # without an entity, because the library would query the server for the project's id
        runs = reports.Runset(name="summary", filters=expr.And(expr.Metric("ID") == contents.summary_run_id))
        grid = reports.PanelGrid(runsets=[runs], panels=section.panels, hide_run_sets=True)
        blocks += [reports.H2(section.title), reports.MarkdownBlock(section.text), grid]
    return reports.Report(
        entity=entity,
        project=contents.project,
        title=contents.title,
        description=contents.description,
        blocks=blocks,
        width="fluid",
    )


def write_views(contents: ViewContents, folder: Path) -> Path:
    """Write workspace and report to one JSON file in W&B's storage format. Returns its path."""
    stored = {"summary_run": contents.summary_run_id}
    for name, view in (("workspace", build_workspace(contents, "")), ("report", build_wandb_report(contents, ""))):
        stored[name] = view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    path = folder / VIEWS_FILE
    write_file_atomically(path, json.dumps(stored, indent=1, ensure_ascii=False).encode())
    return path


def save_views(contents: ViewContents, entity: str) -> list[str]:
    """Save workspace and report to the account, replacing earlier ones. Returns their URLs."""
    import wandb
    from wandb_workspaces.workspaces import internal

    workspace = build_workspace(contents, entity)
    # the format of W&B's view names; the default is a random name
    workspace._internal_name = f"nw-{contents.summary_run_id[:11]}-v"
    with suppress(ValueError):  # the workspace does not exist yet
        workspace._internal_id = internal.View.from_name(entity, contents.project, workspace._internal_name).id
    report = build_wandb_report(contents, entity)
    existing_reports = wandb.Api().reports(f"{entity}/{contents.project}")
    report.id = next((old.id for old in existing_reports if old.display_name == contents.title), "")
    return [workspace.save().url, report.save().url]
