"""The summary run's tables: the numbers of the report, and no more rows than W&B shows."""

from dataclasses import replace
from math import isclose, log10

from benchmark.analysis import load
from benchmark.analysis.leaderboard import build_leaderboard
from benchmark.analysis.significance import compute_significance
from benchmark.grid import planner
from benchmark.reporting.wandb import tables
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import CurvePoint, DevScore
from benchmark.results.store import ResultStore
from tests.support.result_fixtures import TRAINING


def test_differences_and_ties_are_numbers(small, answered):
    right = {"lora": [1, 1, 1, 0], "prompt": [1, 0, 0, 0], "zero_shot": [0, 0, 0, 0]}
    for planned in planner.plan_grid(small):
        answered(small, planned, right[planned.cell.method] * 30)
    _, results, _ = load.collect_results(small, ResultStore(small.results_folder))
    table, worth = build_leaderboard(small, results), compute_significance(build_leaderboard(small, results), results)
    columns, rows = tables.build_differences_table(table, worth)
    row = dict(zip(columns, next(r for r in rows if r[:4] == ["prompt", "lora", "16", "chnsent"]), strict=True))
    assert (row["difference"], row["difference_seeds"]) == (-50.0, 3)
    assert isclose((row["difference_low"] + row["difference_high"]) / 2, -50.0, abs_tol=1e-3)
    assert row["difference_p"] < 0.05 < row["detectable"]
    assert len(rows) == 2 * 2 * (3 + 3)  # methods, shots, averages and tasks
    columns, rows = tables.build_ties_table(table, worth)
    found = {(r[0], r[2]): dict(zip(columns, r, strict=True)) for r in rows if r[1] == "4"}
    assert [found[name, "choice tasks"]["ties"] for name in right] == ["a", "b", ""]
    assert [found[name, "choice tasks"]["average_rank"] for name in right] == [1.0, 2.0, None]
    assert found["lora", "target tasks"]["mean"] == 75.0
    columns, rows = tables.build_leaderboard_table(table, worth, 4)
    lines = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert [lines[name]["mean"] for name in right] == [75.0, 25.0, 0.0]
    assert [lines[name]["pareto"] for name in right] == [
        True,
        False,
        False,
    ]  # both train 1,000; a control is in no race
    assert lines["prompt"]["difference"] == -50.0
    assert isclose(lines["lora"]["log10_trained_parameters"], log10(1000))


def test_a_mean_curve_carries_the_last_value_of_a_cell_that_stopped(small, fake):
    planned = next(cell for cell in planner.plan_grid(small) if cell.cell.method == "lora")

    def cell(method: str, steps: int, loss: float) -> CellResult:
        saved = fake(small, planned, 0.5)
        curve = tuple(CurvePoint(step, loss) for step in range(1, steps + 1))
        training = replace(TRAINING, loss=curve, dev=(DevScore(steps, loss / 10, 0.0),))
        return replace(saved, stored_details=replace(saved.details, training=training))

    columns, rows = tables.build_curves_table([cell("lora", 10, 1.0), cell("lora", 40, 3.0)], 4)
    assert columns == ["method", "step", "loss", "dev_score", "cells"]
    assert [row[1] for row in rows] == list(range(2, 41, 2))
    assert {row[2] for row in rows} == {2.0}  # not 3.0 once the first has stopped
    assert [row[3] for row in rows] == [None] * 4 + [0.1] * 15 + [0.2]
    assert tables.build_curves_table([cell("lora", 10, 1.0)], 16)[1] == []


def test_a_run_gets_few_points_and_the_last_of_them():
    training = replace(
        TRAINING,
        loss=tuple(CurvePoint(step, 1 / step) for step in range(1, 201)),
        dev=(DevScore(100, 0.5, 0.0), DevScore(199, 0.6, 0.0)),
    )
    found = dict(tables.iterate_curve_points(training))
    assert list(found) == sorted(found)
    assert len([1 for values in found.values() if "loss" in values]) == tables.MAX_LOSS_POINTS
    assert (found[200], found[199]) == ({"loss": 1 / 200}, {"dev_score": 0.6})
    assert found[100] == {"loss": 1 / 100, "dev_score": 0.5}


def test_tables_and_names_stay_within_what_wandb_shows(small, fake, monkeypatch):
    for planned in planner.plan_grid(small):
        fake(small, planned, 0.25)
    _, results, _ = load.collect_results(small, ResultStore(small.results_folder))
    table, worth = build_leaderboard(small, results), compute_significance(build_leaderboard(small, results), results)
    whole = tables.build_all_tables(table, worth, results)
    monkeypatch.setattr(tables, "MAX_ROWS", 10)
    parts = tables.build_all_tables(table, worth, results)
    cells = [rows for name, (_, rows) in parts.items() if name.partition("/")[0] == "cells"]
    assert [len(rows) for rows in cells] == [10, 10, 10, 9]
    assert sum(cells, []) == whole["cells"][1]
    assert all(len(rows) <= 10 for _, rows in parts.values())
    assert len(whole) == 5 + 3 * 2  # more shots, three more tables; more methods, tasks and seeds, none
