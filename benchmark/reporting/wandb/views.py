"""The workspace and the report: panels over the tables of one summary run, as specifications of wandb-workspaces.

Every panel reads the summary run, so nothing is cut where a grid has more runs than W&B draws. Offline the two are
written as one JSON file, in the form that W&B stores them in; online they are saved under names made from the summary
run's id, so that saving again changes what is there.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.results.files import write_file_atomically

REQUIRED_PACKAGE = "wandb-workspaces"
VIEWS_FILE = "wandb.json"  # in the folder of the report
FULL_WIDTH = 24  # of a report's grid
HALF_WIDTH = 12
PANEL_HEIGHT = 10
LEADERBOARD_TEXT = (
    "Mean over the {} x 100, with its 95 % interval over seeds; `difference` is paired, to the reference. Methods that "
    "share a letter are not told apart. An average is empty while one of its cells is missing. Below each: every task."
)
PARETO_TEXT = (
    "Quality ({}) against log10 of the trained parameters. `pareto` in a leaderboard marks the methods that none beats "
    "with as few."
)
SHOT_CURVES_TEXT = "Score against log10 of the examples that a cell trained on, mean over cells."
COST_TEXT = (
    "Seconds are of one cell; `seconds_amortised` in a leaderboard adds its share of the source prompts and stages "
    "that it rests on."
)
LEARNING_CURVES_TEXT = (
    "Means over all cells of a method; one that stopped early keeps its last value. A single cell's own curves are in "
    "its run: the group is the grid, the job type the method."
)
DIFFERENCES_TEXT = (
    "`difference_p` is corrected for the number of methods (Holm); `detectable` is the true difference that a grid of "
    "this size finds with 80 % probability."
)


class ViewContents(NamedTuple):
    """What there is to show."""

    project: str
    summary_run_id: str  # id of the summary run
    title: str
    description: str
    primary_average: str  # the first: what a leaderboard is about
    shots: Sequence[int | str]
    table_names: Sequence[str]
    image_keys: Sequence[str]


class Section(NamedTuple):
    """A section of both."""

    title: str
    text: str
    panels: list[Any]


def is_installed() -> bool:
    return find_spec("wandb_workspaces") is not None


def build_sections(contents: ViewContents) -> Iterator[Section]:
    """The sections. Panels are made anew each time: two views must not share them."""
    shots, average = contents.shots, contents.primary_average
    learned = [name for name in contents.image_keys if name.startswith("inside/")]
    overview = [_build_image_panel([name]) for name in contents.image_keys if name not in learned]
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
    real = [name for name in contents.table_names if name.partition("/")[0] in ("differences", "ties")]
    yield Section("Differences and ties", DIFFERENCES_TEXT, [_build_table_panel(name) for name in real])
    if learned:
        yield Section(
            "What the sources taught", "Curves and weights of the source stages.", [_build_image_panel(learned)]
        )


def _build_table_panel(name: str) -> Any:
    import wandb_workspaces.reports.v2 as reports

    return reports.WeavePanelSummaryTable(table_name=name, layout=reports.Layout(w=FULL_WIDTH, h=PANEL_HEIGHT))


def _build_chart_panel(preset: str, table: str, title: str, fields: dict[str, str]) -> Any:
    """One of W&B's own charts over a table of the summary run."""
    import wandb_workspaces.reports.v2 as reports

    return reports.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=f"wandb/{preset}/v0",
        chart_fields=fields,
        chart_strings={"title": title},
        layout=reports.Layout(w=HALF_WIDTH, h=PANEL_HEIGHT),
    )


def _build_image_panel(keys: Sequence[str]) -> Any:
    import wandb_workspaces.reports.v2 as reports

    return reports.MediaBrowser(
        media_keys=list(keys), num_columns=1, layout=reports.Layout(w=FULL_WIDTH, h=PANEL_HEIGHT + 4)
    )


# -------------------------------------------------------------------- the two


def build_workspace(contents: ViewContents, entity: str) -> Any:
    """Sections of panels beside a list of runs that has the summary run alone."""
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    sections = [
        workspaces.Section(
            name=part.title,
            panels=[reports.MarkdownPanel(markdown=part.text), *part.panels],
            is_open=place < 3,
            layout_settings=workspaces.SectionLayoutSettings(columns=2, rows=-(-(1 + len(part.panels)) // 2)),
        )
        for place, part in enumerate(build_sections(contents))
    ]
    only = workspaces.RunsetSettings(filters=expr.And(expr.Metric("ID") == contents.summary_run_id))
    return workspaces.Workspace(
        entity=entity, project=contents.project, name=contents.title, sections=sections, runset_settings=only
    )


def build_wandb_report(contents: ViewContents, entity: str) -> Any:
    """The same sections as a page to read."""
    import wandb_workspaces.reports.v2 as reports
    from wandb_workspaces import expr

    blocks = [reports.TableOfContents(), reports.P(contents.description)]
    for part in build_sections(contents):
        # no entity: the library would ask the server for the project's number
        runs = reports.Runset(name="summary", filters=expr.And(expr.Metric("ID") == contents.summary_run_id))
        grid = reports.PanelGrid(runsets=[runs], panels=part.panels, hide_run_sets=True)
        blocks += [reports.H2(part.title), reports.MarkdownBlock(part.text), grid]
    return reports.Report(
        entity=entity,
        project=contents.project,
        title=contents.title,
        description=contents.description,
        blocks=blocks,
        width="fluid",
    )


def write_views(contents: ViewContents, folder: Path) -> Path:
    """Both as a file, in the form that W&B stores them in. -> its path"""
    made = {"summary_run": contents.summary_run_id}
    for name, view in (("workspace", build_workspace(contents, "")), ("report", build_wandb_report(contents, ""))):
        made[name] = view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    path = folder / VIEWS_FILE
    write_file_atomically(path, json.dumps(made, indent=1, ensure_ascii=False).encode())
    return path


def save_views(contents: ViewContents, entity: str) -> list[str]:
    """Both in the account, in place of what an earlier time left there. -> their addresses."""
    import wandb
    from wandb_workspaces.workspaces import internal

    view = build_workspace(contents, entity)
    view._internal_name = (
        f"nw-{contents.summary_run_id[:11]}-v"  # W&B's form of a view's name; by itself it would be a random one
    )
    with suppress(ValueError):  # not there yet
        view._internal_id = internal.View.from_name(entity, contents.project, view._internal_name).id
    page = build_wandb_report(contents, entity)
    titled = (
        old.id for old in wandb.Api().reports(f"{entity}/{contents.project}") if old.display_name == contents.title
    )
    page.id = next(titled, "")
    return [view.save().url, page.save().url]
