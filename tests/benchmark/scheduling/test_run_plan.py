"""The plan of a run is built once, and everything that is printed or started comes from it."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from benchmark.analysis import load
from benchmark.cli import inspect
from benchmark.cli.inspect import StatusReport
from benchmark.cli.main import main
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.results.schema import CellStatus
from benchmark.scheduling.cost_model import CostModel
from benchmark.scheduling.run_plan import build_run_plan


def plan_small(profile: Profile, state: str = "planned"):
    cells = planner.plan_grid(profile)
    return build_run_plan(profile, cells, [CellStatus(state, "") for _ in cells], CostModel(profile, ()))


def test_the_plan_counts_workers_by_packs_as_the_run_does(small: Profile):
    profile = replace(small, methods=("lora",), pack=100, workers=16)
    run_plan = plan_small(profile)
    assert len(run_plan.packs) < len(run_plan.cells)
    assert run_plan.num_workers == min(16, len(run_plan.packs))


def test_only_due_cells_are_packed_and_estimated(small: Profile):
    run_plan = plan_small(small, "done")
    assert (run_plan.packs, dict(run_plan.estimates), run_plan.total_seconds) == ((), {}, 0.0)


def test_the_cost_model_counts_steps_as_the_budget_does(small: Profile):
    few = replace(small.budget, epochs=1, min_steps=0, max_steps=1000, evaluations=0)
    many = replace(few, min_steps=320)
    cell = next(cell for cell in planner.plan_grid(small) if cell.cell.method == "lora")
    seconds = [
        CostModel(small, ()).estimate_seconds_from_flops(replace(cell, inputs=replace(cell.inputs, budget=budget)))
        for budget in (few, many)
    ]
    assert seconds[1] > seconds[0]


def test_watching_ends_by_the_state_of_the_cells_and_not_by_a_printed_line(small: Profile, monkeypatch):
    reports = [StatusReport(["nothing is due"], True), StatusReport(["3 planned"], False)]
    sleeps: list[float] = []
    monkeypatch.setattr(inspect, "build_status_report", lambda *_: reports.pop(0))
    monkeypatch.setattr(inspect, "sleep", sleeps.append)
    assert inspect.print_status(small, True, Console(file=StringIO())) == 0
    assert (reports, len(sleeps)) == ([], 1)


def test_a_run_with_wandb_loads_the_results_once(small: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path):
    calls = []
    real = load.load_results

    def count(profile: Profile, **options: object):
        calls.append(profile)
        return real(profile, **options)

    monkeypatch.setattr("benchmark.cli.run.load_results", count)
    monkeypatch.setattr("benchmark.reporting.build.load_results", count)
    monkeypatch.setattr("benchmark.analysis.load.load_results", count)
    monkeypatch.setattr("benchmark.reporting.wandb.export.load_results", count, raising=False)
    words = ["run", "--profile", "smoke", "--methods", "majority", "--tasks", "chnsent", "--workers", "1"]
    assert main([*words, "--results", str(tmp_path / "results"), "--wandb", "offline"]) == 0
    assert len(calls) == 1
