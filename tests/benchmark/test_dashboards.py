"""What was logged is read back with W&B's own tool, from the files on disk."""

import json
import os
import re
import subprocess
import sys
from math import isclose
from pathlib import Path

import pytest

from benchmark import dashboards, grid, report
from benchmark.profile import Profile
from benchmark.standing import standings
from benchmark.store import Store
from benchmark.table import board
from tasks.example import UsageError


def records(folder: Path) -> list[dict]:
    """Every record of a run, by `wandb leet inspect`."""
    tool = Path(sys.executable).with_name("wandb")
    said = subprocess.run([tool, "leet", "inspect", "--json", folder], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in said.stdout.splitlines()]


def summary_of(found: list[dict]) -> dict:
    values: dict = {}
    for record in found:
        values |= record.get("summary", {}).get("update", {})
    return values


@pytest.fixture
def offline(small: Profile, fake, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    for planned in grid.plan(small):
        if planned.cell.task == "chnsent" and planned.cell.shots in (0, 4):
            fake(small, planned, 0.25)
    return small


@pytest.fixture
def written(offline: Profile) -> tuple[Profile, Path]:
    count, folder = dashboards.write(offline, "offline")
    assert count == 7
    return offline, folder


def test_each_cell_is_a_run_with_its_curves_and_the_same_names(written):
    found, folder = written
    planned = next(cell for cell in grid.plan(found) if cell.cell.key == "lora/chnsent/4/1")
    (run,) = folder.glob(f"offline-run-*-{planned.identity[:16]}")
    logged = records(run)
    said = next(record["run"] for record in logged if record["type"] == "run")
    assert (said["run_group"], said["job_type"], said["display_name"]) == ("smoke", "lora", "lora/chnsent/4/1")
    assert set(said["tags"]) == {"chnsent", "4 shots"}
    assert said["config"]["update"]["rank"] == 8
    history = [record["history"]["item"] for record in logged if record["type"] == "history"]
    assert [(row["_step"], row["loss"]) for row in history] == [(1, 2.0), (2, 1.5), (3, 1.0)]
    values = {name: value for name, value in summary_of(logged).items() if not name.startswith("_")}
    assert set(values) == set(dashboards.METRICS)
    assert (values["score"], values["dev_score"], values["trained_parameters"]) == (0.25, 0.5, 1000)


def test_the_summary_run_has_the_tables_as_numbers(written):
    _, folder = written
    (run,) = [path for path in folder.glob("offline-run-*") if list(path.glob("files/media/table/cells_*.json"))]
    values = summary_of(records(run))
    names = ("cells", "cost", "differences", "ties", "matrix/4", "matrix/16")
    assert {f"{name}.path" for name in names} <= set(values)
    table = json.loads((run / "files" / values["matrix/4.path"]).read_text())
    assert table["columns"] == ["method", "choice tasks", "source tasks", "target tasks", "afqmc", "chnsent", "cote_bd"]
    row = next(row for row in table["data"] if row[0] == "lora")
    assert row[1:] == [None, None, None, None, 25.0, None]  # an average is empty while a cell is missing
    cells = json.loads((run / "files" / values["cells.path"]).read_text())
    assert len(cells["data"]) == 7


def test_differences_and_ties_are_numbers(small, answered):
    right = {"lora": [1, 1, 1, 0], "prompt": [1, 0, 0, 0], "zero_shot": [0, 0, 0, 0]}
    for planned in grid.plan(small):
        answered(small, planned, right[planned.cell.method] * 30)
    _, results, _ = report.collect(small, Store(small.folder))
    table, worth = board(small, results), standings(board(small, results), results)
    columns, rows = dashboards.differences(worth)
    row = dict(zip(columns, next(r for r in rows if r[:4] == ["prompt", "lora", "16", "chnsent"]), strict=True))
    assert (row["difference"], row["difference_seeds"]) == (-50.0, 3)
    assert isclose((row["difference_low"] + row["difference_high"]) / 2, -50.0, abs_tol=1e-3)
    assert row["difference_p"] < 0.05 < row["detectable"]
    assert len(rows) == 2 * 2 * (3 + 3)  # methods, shots, averages and tasks
    columns, rows = dashboards.ties(table, worth)
    found = {(r[0], r[2]): dict(zip(columns, r, strict=True)) for r in rows if r[1] == "4"}
    assert [found[name, "choice tasks"]["ties"] for name in right] == ["a", "b", ""]
    assert [found[name, "choice tasks"]["average_rank"] for name in right] == [1.0, 2.0, None]
    assert found["lora", "target tasks"]["mean"] == 75.0


def test_writing_again_duplicates_nothing(written):
    found, folder = written
    before = sorted(path.name.rpartition("-")[2] for path in folder.glob("offline-run-*"))
    dashboards.write(found, "offline")
    assert sorted(path.name.rpartition("-")[2] for path in folder.glob("offline-run-*")) == before


def test_runs_do_not_name_the_machine(written):
    _, folder = written
    runs = list(folder.glob("offline-run-*"))
    # whole words: a short host name also turns up inside the random ids that W&B makes
    named = {word for run in runs for word in re.findall(r"[\w.-]+", json.dumps(records(run)))}
    assert "adapterbench" in named
    assert os.uname().nodename not in named
    # a table's record names its local copy, which a later `wandb sync` reads; cells have no tables
    cells = [run for run in runs if not (run / "files" / "media").exists()]
    assert len(cells) == 7
    logs = [log.read_bytes() for run in cells for log in run.glob("*.wandb")]
    assert len(logs) == 7
    assert not any(str(folder.resolve()).encode() in log for log in logs)


def test_uploading_without_an_account_is_refused(offline, monkeypatch):
    monkeypatch.setattr(dashboards, "key", lambda: None)
    with pytest.raises(UsageError, match="wandb login"):
        dashboards.write(offline, "online")
    assert not (offline.folder / "wandb").exists()
