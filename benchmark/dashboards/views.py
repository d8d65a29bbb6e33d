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

from benchmark.store import write

NEEDS = "wandb-workspaces"
FILE = "wandb.json"  # in the folder of the report
WIDE = 24  # of a report's grid
HALF = 12
HIGH = 10
LEADERBOARD = (
    "Mean over the {} x 100, with its 95 % interval over seeds; `difference` is paired, to the reference. Methods that "
    "share a letter are not told apart. An average is empty while one of its cells is missing. Below each: every task."
)
PARETO = (
    "Quality ({}) against log10 of the trained parameters. `pareto` in a leaderboard marks the methods that none beats "
    "with as few."
)
SHOTS = "Score against log10 of the examples that a cell trained on, mean over cells."
COST = (
    "Seconds are of one cell; `seconds_amortised` in a leaderboard adds its share of the source prompts and stages "
    "that it rests on."
)
CURVES = (
    "Means over all cells of a method; one that stopped early keeps its last value. A single cell's own curves are in "
    "its run: the group is the grid, the job type the method."
)
REAL = (
    "`difference_p` is corrected for the number of methods (Holm); `detectable` is the true difference that a grid of "
    "this size finds with 80 % probability."
)


class Shown(NamedTuple):
    """What there is to show."""

    project: str
    run: str  # id of the summary run
    title: str
    about: str
    average: str  # the first: what a leaderboard is about
    shots: Sequence[int | str]
    tables: Sequence[str]
    pictures: Sequence[str]


class Part(NamedTuple):
    """A section of both."""

    title: str
    text: str
    panels: list[Any]


def installed() -> bool:
    return find_spec("wandb_workspaces") is not None


def parts(shown: Shown) -> Iterator[Part]:
    """The sections. Panels are made anew each time: two views must not share them."""
    shots, average = shown.shots, shown.average
    learned = [name for name in shown.pictures if name.startswith("inside/")]
    overview = [_pictures([name]) for name in shown.pictures if name not in learned]
    boards = [_table(f"{kind}/{n}") for n in shots for kind in ("leaderboard", "matrix")]
    yield Part("Leaderboard", LEADERBOARD.format(average), overview + boards)
    pareto = {"x": "log10_trained_parameters", "y": "mean"}
    charts = [_chart("scatter", f"leaderboard/{n}", f"{average}, {n} shots", pareto) for n in shots]
    yield Part("Pareto", PARETO.format(average), charts)
    line = {"x": "log10_examples", "y": average.replace(" ", "_"), "stroke": "method"}
    yield Part("Shot curves", SHOTS, [_chart("line", "shots", f"{average} by examples", line), _table("shots")])
    bar = {"label": "method", "value": "seconds_per_cell"}
    charts = [_chart("bar", f"leaderboard/{n}", f"seconds per cell, {n} shots", bar) for n in shots]
    yield Part("Cost", COST, [*charts, _table("cost")])
    charts = [
        _chart("line", f"curves/{n}", f"{label}, {n} shots", {"x": "step", "y": name, "stroke": "method"})
        for n in shots
        for name, label in (("dev_score", "dev score"), ("loss", "training loss"))
    ]
    yield Part("Learning curves", CURVES, charts)
    real = [name for name in shown.tables if name.partition("/")[0] in ("differences", "ties")]
    yield Part("Differences and ties", REAL, [_table(name) for name in real])
    if learned:
        yield Part("What the sources taught", "Curves and weights of the source stages.", [_pictures(learned)])


def _table(name: str) -> Any:
    import wandb_workspaces.reports.v2 as reports

    return reports.WeavePanelSummaryTable(table_name=name, layout=reports.Layout(w=WIDE, h=HIGH))


def _chart(preset: str, table: str, title: str, fields: dict[str, str]) -> Any:
    """One of W&B's own charts over a table of the summary run."""
    import wandb_workspaces.reports.v2 as reports

    return reports.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=f"wandb/{preset}/v0",
        chart_fields=fields,
        chart_strings={"title": title},
        layout=reports.Layout(w=HALF, h=HIGH),
    )


def _pictures(keys: Sequence[str]) -> Any:
    import wandb_workspaces.reports.v2 as reports

    return reports.MediaBrowser(media_keys=list(keys), num_columns=1, layout=reports.Layout(w=WIDE, h=HIGH + 4))


# -------------------------------------------------------------------- the two


def workspace(shown: Shown, entity: str) -> Any:
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
        for place, part in enumerate(parts(shown))
    ]
    only = workspaces.RunsetSettings(filters=expr.And(expr.Metric("ID") == shown.run))
    return workspaces.Workspace(
        entity=entity, project=shown.project, name=shown.title, sections=sections, runset_settings=only
    )


def report(shown: Shown, entity: str) -> Any:
    """The same sections as a page to read."""
    import wandb_workspaces.reports.v2 as reports
    from wandb_workspaces import expr

    blocks = [reports.TableOfContents(), reports.P(shown.about)]
    for part in parts(shown):
        # no entity: the library would ask the server for the project's number
        runs = reports.Runset(name="summary", filters=expr.And(expr.Metric("ID") == shown.run))
        grid = reports.PanelGrid(runsets=[runs], panels=part.panels, hide_run_sets=True)
        blocks += [reports.H2(part.title), reports.MarkdownBlock(part.text), grid]
    return reports.Report(
        entity=entity, project=shown.project, title=shown.title, description=shown.about, blocks=blocks, width="fluid"
    )


def keep(shown: Shown, folder: Path) -> Path:
    """Both as a file, in the form that W&B stores them in. -> its path"""
    made = {"summary_run": shown.run}
    for name, view in (("workspace", workspace(shown, "")), ("report", report(shown, ""))):
        made[name] = view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    path = folder / FILE
    write(path, json.dumps(made, indent=1, ensure_ascii=False).encode())
    return path


def save(shown: Shown, entity: str) -> list[str]:
    """Both in the account, in place of what an earlier time left there. -> their addresses."""
    import wandb
    from wandb_workspaces.workspaces import internal

    view = workspace(shown, entity)
    view._internal_name = f"nw-{shown.run[:11]}-v"  # W&B's form of a view's name; by itself it would be a random one
    with suppress(ValueError):  # not there yet
        view._internal_id = internal.View.from_name(entity, shown.project, view._internal_name).id
    page = report(shown, entity)
    titled = (old.id for old in wandb.Api().reports(f"{entity}/{shown.project}") if old.display_name == shown.title)
    page.id = next(titled, "")
    return [view.save().url, page.save().url]
