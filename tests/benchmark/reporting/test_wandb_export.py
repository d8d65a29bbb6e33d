"""What was logged is read back with W&B's own tool, from the files on disk."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.reporting.wandb import export, tables, views
from tests.support.wandb_runs import KEY


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
def written(offline: Profile, monkeypatch: pytest.MonkeyPatch) -> tuple[Profile, Path]:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    count, left, folder, shown = export.export_results(offline, "offline")
    assert (count, left, shown) == (7, 0, [str(offline.results_folder / "report" / "wandb.json")])
    return offline, folder


def summary_run(folder: Path) -> Path:
    (run,) = [path for path in folder.glob("offline-run-*") if list(path.glob("files/media/table/cells_*.json"))]
    return run


def test_each_cell_is_a_run_with_its_curves_and_the_same_names(written):
    found, folder = written
    planned = next(cell for cell in planner.plan_grid(found) if cell.cell.key == "lora/chnsent/4/1")
    (run,) = folder.glob(f"offline-run-*-{planned.identity[:16]}")
    logged = records(run)
    said = next(record["run"] for record in logged if record["type"] == "run")
    assert (said["run_group"], said["job_type"], said["display_name"]) == ("smoke", "lora", "lora/chnsent/4/1")
    assert set(said["tags"]) == {"chnsent", "4 shots"}
    assert said["config"]["update"]["rank"] == 8
    history = [record["history"]["item"] for record in logged if record["type"] == "history"]
    assert [(row["_step"], row["loss"]) for row in history] == [(1, 2.0), (2, 1.5), (3, 1.0)]
    values = {name: value for name, value in summary_of(logged).items() if not name.startswith("_")}
    assert set(values) == set(tables.RUN_METRICS)
    assert (values["score"], values["dev_score"], values["trained_parameters"]) == (0.25, 0.5, 1000)


def test_the_summary_run_has_the_tables_as_numbers_and_the_panels_read_them(written):
    found, folder = written
    run = summary_run(folder)
    values = summary_of(records(run))
    table = json.loads((run / "files" / values["matrix/4.path"]).read_text())
    assert table["columns"] == ["method", "choice tasks", "source tasks", "target tasks", "afqmc", "chnsent", "cote_bd"]
    row = next(row for row in table["data"] if row[0] == "lora")
    assert row[1:] == [None, None, None, None, 25.0, None]  # an average is empty while a cell is missing
    cells = json.loads((run / "files" / values["cells.path"]).read_text())
    assert len(cells["data"]) == 7
    kept = json.loads((found.results_folder / "report" / views.VIEWS_FILE).read_text())
    assert kept["summary_run"] == run.name.rpartition("-")[2]
    for view in ("workspace", "report"):
        read = read_by(kept[view])
        assert {"leaderboard/4", "leaderboard/16", "shots", "cost", "curves/4", "differences", "ties"} <= set(read)
        for name, columns in read.items():
            table = json.loads((run / "files" / values[f"{name}.path"]).read_text())
            assert columns <= set(table["columns"])


def read_by(view: object) -> dict[str, set[str]]:
    """Tables that the panels of a specification read -> the columns that its charts ask for."""
    if isinstance(view, list):
        found = [item for part in view for item in read_by(part).items()]
    elif not isinstance(view, dict):
        return {}
    elif view.get("viewType") == "Weave":
        pick = view["config"]["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
        found = [(pick, set())]
    elif view.get("viewType") == "Vega2":
        (name,) = re.findall(r'"tableKey", "value": "([^"]+)"', json.dumps(view["config"]))
        found = [(name, set(view["config"]["fieldSettings"].values()))]
    else:
        found = [item for part in view.values() for item in read_by(part).items()]
    return {name: set().union(*(columns for other, columns in found if other == name)) for name, _ in found}


def test_panels_have_all_sections_and_the_summary_run_alone(tmp_path):
    named = ["leaderboard/4", "differences", "differences/2", "ties"]
    pictures = ["inside/ta_lora", "leaderboard/picture"]
    shown = views.ViewContents(
        "adapterbench", "0123456789abcdef", "demo", "7 cells", "choice tasks", [4, "full"], named, pictures
    )
    kept = json.loads(views.write_views(shown, tmp_path).read_text())
    section = kept["workspace"]["spec"]["section"]
    names = [part["name"] for part in section["panelBankConfig"]["sections"]]
    assert names[:5] == ["Leaderboard", "Pareto", "Shot curves", "Cost", "Learning curves"]
    assert names[5:] == ["Differences and ties", "Diagnostics of the source stages"]
    assert all(part["panels"] for part in section["panelBankConfig"]["sections"])
    assert shown.summary_run_id in json.dumps(section["runSets"])
    blocks = kept["report"]["spec"]["blocks"]
    assert [block["children"][0]["text"] for block in blocks if block["type"] == "heading"] == names
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    assert len(grids) == len(names)
    assert all(shown.summary_run_id in json.dumps(metadata["runSets"]) for metadata in grids)
    for view in ("workspace", "report"):
        assert "differences/2" in read_by(kept[view])
        assert all(f'"{name}"' in json.dumps(kept[view]) for name in pictures)


def test_writing_again_duplicates_nothing(written):
    found, folder = written
    before = sorted(path.name.rpartition("-")[2] for path in folder.glob("offline-run-*"))
    times = {path: path.stat().st_mtime_ns for path in folder.glob("offline-run-*/*.wandb")}
    export.export_results(found, "offline")
    assert sorted(path.name.rpartition("-")[2] for path in folder.glob("offline-run-*")) == before
    again = {path: path.stat().st_mtime_ns for path in folder.glob("offline-run-*/*.wandb")}
    assert len(times.items() & again.items()) == 7  # the cells' are left alone, the summary is new


def test_runs_do_not_name_the_machine_or_the_key(written, capfd):
    _, folder = written
    runs = list(folder.glob("offline-run-*"))
    # whole words: a short host name also turns up inside the random ids that W&B makes
    named = {word for run in runs for log in run.glob("*.wandb") for word in re.findall(rb"[\w.-]+", log.read_bytes())}
    assert any(b"adapterbench" in word for word in named)  # a length may stand before it, as a letter
    assert os.uname().nodename.encode() not in named
    # a table's record names its local copy, which a later `wandb sync` reads; cells have no tables
    cells = [run for run in runs if not (run / "files" / "media").exists()]
    assert len(cells) == 7
    logs = [log.read_bytes() for run in cells for log in run.glob("*.wandb")]
    assert len(logs) == 7
    assert not any(str(folder.resolve()).encode() in log for log in logs)
    assert not any(sys.argv[0].encode() in log for log in logs)
    every = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert not [path for path in every if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())
