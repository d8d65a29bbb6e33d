"""What a plan says of the last run: expected and taken time, and nothing that a crash left."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from benchmark.cli import plan
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.results import run_log, store
from benchmark.scheduling.cost_model import CostModel
from benchmark.scheduling.run_plan import build_run_plan


def test_the_error_of_the_last_run_is_said(tmp_path: Path):
    assert run_log.format_estimate_error(tmp_path) == ""
    run_log.append_run(tmp_path, 96, 2, 200.0, 100.0)
    run_log.append_run(tmp_path, 96, 2, 200.0, 250.0)
    assert run_log.format_estimate_error(tmp_path) == "the last run took 4 min for 96 cells, 25 % more than planned"
    run_log.append_run(tmp_path, 8, 2, 40.0, 20.0)
    assert run_log.format_estimate_error(tmp_path) == "the last run took 20 s for 8 cells, 50 % less than planned"


def test_a_torn_line_does_not_count(tmp_path: Path):
    run_log.append_run(tmp_path, 8, 2, 40.0, 20.0)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"cells": 9, "took"')
    assert run_log.load_last_run(tmp_path)["cells"] == 8


def test_a_plan_shows_it(small: Profile):
    found, said = replace(small, methods=("lora",)), StringIO()
    found.results_folder.mkdir(parents=True, exist_ok=True)
    run_log.append_run(found.results_folder, 8, 2, 40.0, 40.0)
    cells = planner.plan_grid(found)
    statuses = store.ResultStore(found.results_folder).compute_statuses(cells, [])
    plan.print_plan(Console(file=said, width=120), build_run_plan(found, cells, statuses, CostModel(found, ())))
    assert "the last run took 40 s for 8 cells, as planned" in said.getvalue()
