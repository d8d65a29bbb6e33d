import csv
import io
import re
from dataclasses import replace
from math import isclose, sqrt

import pytest
from rich.console import Console

from benchmark.analysis import leaderboard, load, significance
from benchmark.analysis.intervals import estimate_mean
from benchmark.analysis.leaderboard import build_leaderboard
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.reporting import build, figures, format, tables
from benchmark.results.store import ResultStore

T2 = 4.302652729911275  # t(2, 0.975), from a printed table


def fill(small: Profile, fake, scores: dict, but: tuple = ()) -> None:
    """A finished cell for every planned one, by (method, task, seed); none for the keys in `but`."""
    for planned in planner.plan_grid(small):
        cell = planned.cell
        if cell.key not in but:
            fake(small, planned, scores.get((cell.method, cell.task, cell.seed), 0.5))


def lines(small: Profile) -> dict:
    _, results, _ = load.collect_results(small, ResultStore(small.results_folder))
    return {(line.method, line.shots): line for line in build_leaderboard(small, results).rows}


def test_mean_and_interval_are_those_of_the_t_distribution():
    mean, half, seeds = estimate_mean([0.5, 0.6, 0.7])
    assert (round(mean, 12), seeds) == (0.6, 3)
    assert isclose(half, T2 * 0.1 / sqrt(3), rel_tol=1e-9)


def test_one_seed_has_no_interval():
    assert estimate_mean([0.5]) == (0.5, None, 1)


def test_figures_of_a_grid_by_hand(small, fake):
    scores = {("lora", "afqmc", seed): value for seed, value in enumerate((0.5, 0.6, 0.7))}
    scores |= {("lora", "chnsent", seed): value for seed, value in enumerate((0.9, 0.8, 0.7))}
    scores |= {("lora", "cote_bd", seed): value for seed, value in enumerate((0.1, 0.2, 0.6))}
    fill(small, fake, scores)
    line = lines(small)["lora", 4]
    assert isclose(line.task_scores["afqmc"].mean, 0.6)
    # choice tasks: afqmc and chnsent, 0.7 with every seed, so no spread at all
    assert isclose(line.averages["choice tasks"].mean, 0.7)
    assert isclose(line.averages["choice tasks"].half_width, 0.0, abs_tol=1e-12)
    # target tasks: chnsent and cote_bd, by seed 0.5, 0.5, 0.65
    assert isclose(line.averages["target tasks"].mean, 1.65 / 3)
    assert isclose(line.averages["target tasks"].half_width, T2 * sqrt(0.0075) / sqrt(3))
    assert isclose(line.averages["source tasks"].mean, 0.6)


def test_an_average_is_empty_while_a_cell_is_missing_and_a_mean_says_its_seeds(small, fake):
    fill(small, fake, {}, but=("lora/chnsent/4/1",))
    found = lines(small)
    line = found["lora", 4]
    assert line.averages["choice tasks"] is None
    assert line.averages["target tasks"] is None
    assert line.averages["source tasks"] is not None
    assert line.task_scores["chnsent"].num_seeds == 2
    assert format.format_score(line.task_scores["chnsent"], 3).endswith("(2/3)")
    assert (line.num_done, line.num_due) == (8, 9)
    assert found["lora", 16].averages["choice tasks"] is not None


def test_a_failed_cell_is_a_missing_one(small, fake):
    fill(small, fake, {}, but=("lora/chnsent/4/1",))
    planned = next(cell for cell in planner.plan_grid(small) if cell.cell.key == "lora/chnsent/4/1")
    fake(small, planned, error="no")
    assert lines(small)["lora", 4].averages["choice tasks"] is None


def test_a_control_stands_in_every_table_with_its_one_run(small, fake):
    fill(small, fake, {})
    found = lines(small)
    assert found["zero_shot", 4].task_scores == found["zero_shot", 16].task_scores
    assert found["zero_shot", 4].is_control
    assert found["zero_shot", 4].task_scores["afqmc"].num_seeds == 1
    assert found["zero_shot", 4].averages["choice tasks"] == (0.5, None, 1)


def test_a_method_without_an_answer_to_a_task_has_no_average_over_it_but_is_complete(small, fake):
    chosen = replace(small, methods=("head_only",))
    fill(chosen, fake, {})
    line = lines(chosen)["head_only", 4]
    assert (line.is_control, line.is_seed_independent, line.num_done, line.num_due) == (True, False, 6, 6)
    assert line.averages["choice tasks"].num_seeds == 3
    assert line.averages["target tasks"] is None


def test_stale_results_are_left_out_unless_asked_for_and_always_counted(small, fake):
    fill(small, fake, {})
    other = replace(small, config={"lora": {"rank": 3}})
    assert lines(other)["lora", 4].task_scores["afqmc"] is None
    _, results, old = load.collect_results(other, ResultStore(small.results_folder))
    assert old == 18
    _, results, _ = load.collect_results(other, ResultStore(small.results_folder), include_stale=True)
    assert sum(result.cell.method == "lora" for result in results) == 18


@pytest.fixture
def written(small, fake):
    fill(small, fake, {("lora", "afqmc", 0): 0.75}, but=("prompt/cote_bd/16/2",))
    out = io.StringIO()
    folder = build.build_report(small, Console(file=out, width=120))
    return folder, out.getvalue()


def test_the_files_are_written_and_say_the_same(written):
    folder, shown = written
    assert {path.name for path in folder.iterdir()} == {
        "index.html", "leaderboard.md", "leaderboard.csv", "cells.csv", "leaderboard.png", "leaderboard.svg",
    }  # fmt: skip
    text = (folder / "leaderboard.md").read_text()
    first = estimate_mean([0.75, 0.5, 0.5])
    assert format.format_score(first) == f"58.3 ±{100 * first.half_width:.1f}"
    assert format.format_score(first) in text
    assert format.format_score(first) in shown
    rows = list(csv.DictReader((folder / "leaderboard.csv").open()))
    row = next(r for r in rows if (r["method"], r["shots"], r["name"]) == ("lora", "4", "afqmc"))
    assert isclose(float(row["mean"]), first.mean)
    assert isclose(float(row["high"]) - float(row["low"]), 2 * first.half_width)
    empty = next(r for r in rows if (r["method"], r["shots"], r["name"]) == ("prompt", "16", "target tasks"))
    assert (empty["mean"], empty["low"]) == ("", "")
    assert len(list(csv.DictReader((folder / "cells.csv").open()))) == 38


def test_tables_have_a_cell_for_every_column(written):
    folder, _ = written
    tables = re.split(r"\n\n", (folder / "leaderboard.md").read_text())
    for table in (block.splitlines() for block in tables if block.startswith("|")):
        assert len({row.count("|") for row in table}) == 1


def test_controls_are_marked(written):
    folder, shown = written
    assert f"zero_shot {format.CONTROL_MARK}" in (folder / "leaderboard.md").read_text()
    assert f"zero_shot {format.CONTROL_MARK}" in shown


def test_the_picture_has_only_latin_labels(written):
    folder, _ = written
    texts = re.findall(r"<!-- (.*?) -->", (folder / "leaderboard.svg").read_text())
    assert any("chnsent" in text for text in texts)
    assert all(text.isascii() for text in texts)


def test_names_in_the_picture_do_not_lie_on_each_other():
    from matplotlib import pyplot

    figure, (axes, _) = pyplot.subplots(1, 2, figsize=(12, 6))
    points = [(1000.0 + i, 50 + 0.01 * i, f"method{i}", "#000000") for i in range(4)] + [(9e5, 50.0, "far", "#000000")]
    axes.scatter(*zip(*[point[:2] for point in points], strict=True))
    axes.set_xscale("log")
    figures.place_labels(axes, points)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    pyplot.close(figure)
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


def test_controls_far_below_are_named_and_do_not_press_the_others_together(small, fake):
    for planned in planner.plan_grid(small):
        fake(small, planned, 0.1 if planned.cell.method == "zero_shot" else 0.8)
    folder = build.build_report(small, Console(file=io.StringIO(), width=120))
    assert "further below: zero_shot 10.0" in (folder / "leaderboard.svg").read_text()


def test_a_report_needs_no_result_to_be_written(small):
    out = io.StringIO()
    folder = build.build_report(small, Console(file=out, width=120))
    assert "lora" in (folder / "leaderboard.md").read_text()
    assert not (folder / "leaderboard.png").exists()


def test_a_narrow_terminal_goes_without_costs_before_it_goes_without_intervals():
    header = ["method", "choice (12)", "trained", "s/cell", "with sources", "memory", "cells"]
    rows = [["lora", "66.9 ±2.6", "28.7 k", "5.5", "8.7 (26.2)", "903 MB", "48/48"]]
    said = {width: tables.fit_to_width(header, rows, width) for width in (120, 62, 36, 28)}
    assert said[120] == (header, rows, True)
    assert said[62][0] == [name for name in header if name != "memory"]
    assert said[36] == (["method", "choice (12)", "trained"], [rows[0][:3]], True)
    assert said[28] == (header, rows, False)


def test_a_cell_that_others_alone_rest_on_is_no_cell_of_the_table(heir, fake):
    """The heir's parents are prompts of sources at full data, with options of the heir's: not the table's own prompts."""
    found = replace(heir, methods=("prompt", "heirs:Heir"), shots=("full",), tasks=("afqmc", "chnsent"), seeds=(0,))
    for planned in planner.plan_grid(found):
        fake(found, planned, 0.75 if planned.cell.method == "prompt" and planned.is_in_table else 0.25)
    keys = [planned.cell.key for planned in planner.plan_grid(found)]
    assert keys.count("prompt/afqmc/full/0") == 2
    assert lines(found)["prompt", "full"].task_scores["afqmc"].mean == 0.75
    for stale in (False, True):  # and where the table's own is not there, nothing stands in for it
        for planned in planner.plan_grid(found):
            if planned.cell.method == "prompt" and planned.is_in_table:
                ResultStore(found.results_folder).get_result_path(planned).unlink(missing_ok=True)
        _, results, _ = load.collect_results(found, ResultStore(found.results_folder), include_stale=stale)
        line = next(line for line in build_leaderboard(found, results).rows if line.method == "prompt")
        assert line.task_scores["afqmc"] is None
        assert [r.cell.stage for r in results if r.cell.method == "prompt"] == [load.DEPENDENCY_STAGE] * 2
        assert (
            next(
                line for line in build_leaderboard(found, results).rows if line.method == "heirs:Heir"
            ).standalone_seconds
            == 7.0
        )


def test_an_older_result_counts_once_on_the_same_backbone_alone(small, fake, tmp_path):
    first, second = (replace(small, config={"lora": {"rank": rank}}) for rank in (3, 5))
    for found, score in ((first, 0.25), (second, 0.75)):
        for planned in planner.plan_grid(found):
            fake(found, planned, score)
    results = load.collect_results(small, ResultStore(small.results_folder), include_stale=True)[1]
    lora = [result for result in results if result.cell.method == "lora"]
    assert len(lora) == len({result.key for result in lora}) == 18
    assert {result.metrics.test.get("accuracy", 0.75) for result in lora} == {0.75}
    other = replace(small, backbone=replace(small.backbone, name="else/where"))
    for planned in planner.plan_grid(other):
        fake(other, planned, 0.5)
    assert len(load.collect_results(small, ResultStore(small.results_folder), include_stale=True)[1]) == len(results)
    again = load.collect_results(other, ResultStore(small.results_folder), include_stale=True)[1]
    assert {result.backbone.name for result in again} == {"else/where"}


def test_a_method_without_the_first_average_is_not_ranked_by_another(small, fake):
    fill(small, fake, {("lora", "afqmc", seed): 0.9 for seed in (0, 1, 2)}, but=("lora/chnsent/4/1",))
    _, results, _ = load.collect_results(small, ResultStore(small.results_folder))
    own = build_leaderboard(small, results).get_rows(4)
    assert next(line for line in own if line.method == "lora").averages["source tasks"].mean > 0.8
    assert [line.method for line in leaderboard.sort_rows(own)] == ["zero_shot", "prompt", "lora"]
    assert significance.choose_reference(own, "lora") == "prompt"  # a difference to lora would be empty


def test_a_metric_of_a_tasks_own_is_named(small, fake):
    fill(small, fake, {})
    _, results, _ = load.collect_results(small, ResultStore(small.results_folder))
    table = build_leaderboard(small, results)
    said = [
        " ".join(build.describe_leaderboard(table._replace(metrics=table.metrics | own), results, 0, False))
        for own in ({}, {"chnsent": "macro_f1"})
    ]
    assert ["macro_f1 for chnsent" in text for text in said] == [False, True]
