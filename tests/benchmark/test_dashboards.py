"""What was logged is read back with W&B's own tool, from the files on disk; what would be sent is caught on its way."""

import json
import os
import re
import subprocess
import sys
from math import isclose, log10
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark import dashboards, grid, report
from benchmark.dashboards import tables, views
from benchmark.profile import Profile
from benchmark.standing import standings
from benchmark.store import Store
from benchmark.table import board
from tasks.example import UsageError
from tests.benchmark.wandb_server import serving

KEY = "0123456789planted0123456789planted012345"


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
def written(offline: Profile, monkeypatch: pytest.MonkeyPatch) -> tuple[Profile, Path]:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    count, left, folder, shown = dashboards.write(offline, "offline")
    assert (count, left, shown) == (7, 0, [str(offline.folder / "report" / "wandb.json")])
    return offline, folder


def summary_run(folder: Path) -> Path:
    (run,) = [path for path in folder.glob("offline-run-*") if list(path.glob("files/media/table/cells_*.json"))]
    return run


# -------------------------------------------------------------------- offline, read back


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
    assert set(values) == set(tables.METRICS)
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
    kept = json.loads((found.folder / "report" / views.FILE).read_text())
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
    shown = views.Shown(
        "adapterbench", "0123456789abcdef", "demo", "7 cells", "choice tasks", [4, "full"], named, pictures
    )
    kept = json.loads(views.keep(shown, tmp_path).read_text())
    section = kept["workspace"]["spec"]["section"]
    names = [part["name"] for part in section["panelBankConfig"]["sections"]]
    assert names[:5] == ["Leaderboard", "Pareto", "Shot curves", "Cost", "Learning curves"]
    assert names[5:] == ["Differences and ties", "What the sources taught"]
    assert all(part["panels"] for part in section["panelBankConfig"]["sections"])
    assert shown.run in json.dumps(section["runSets"])
    blocks = kept["report"]["spec"]["blocks"]
    assert [block["children"][0]["text"] for block in blocks if block["type"] == "heading"] == names
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    assert len(grids) == len(names)
    assert all(shown.run in json.dumps(metadata["runSets"]) for metadata in grids)
    for view in ("workspace", "report"):
        assert "differences/2" in read_by(kept[view])
        assert all(f'"{name}"' in json.dumps(kept[view]) for name in pictures)


def test_writing_again_duplicates_nothing(written):
    found, folder = written
    before = sorted(path.name.rpartition("-")[2] for path in folder.glob("offline-run-*"))
    times = {path: path.stat().st_mtime_ns for path in folder.glob("offline-run-*/*.wandb")}
    dashboards.write(found, "offline")
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


# -------------------------------------------------------------------- online, caught on its way


class Caught:
    """In place of W&B's run: keeps what it is given and leaves the folder that a run leaves."""

    sent: list["Caught"]

    def __init__(self, folder: Path, mode: str, **options: object) -> None:
        self.options, self.logged, self.summary, self.entity, self.ended = (
            options | {"mode": mode},
            [],
            {},
            "someone",
            0,
        )
        kind = "run" if mode == "online" else "offline-run"
        (folder / "wandb" / f"{kind}-20260101_000000-{options['id']}").mkdir(parents=True, exist_ok=True)
        self.sent.append(self)

    def log(self, values: dict, **step: int) -> None:
        self.logged.append((step.get("step"), values))

    def finish(self) -> None:
        self.ended += 1


@pytest.fixture
def caught(offline: Profile, monkeypatch: pytest.MonkeyPatch) -> list[Caught]:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(dashboards, "start", Caught)
    monkeypatch.setattr(Caught, "sent", [], raising=False)
    return Caught.sent


def test_the_client_sends_one_run_under_its_own_id_and_never_the_key(offline, monkeypatch):
    """Over HTTP, to a server of our own."""
    import wandb

    wandb.teardown()  # what earlier tests left running has asked for the address already
    _, results, _ = report.collect(offline, Store(offline.folder))
    result = next(result for result in results if result["key"] == "lora/chnsent/4/1")
    run = result["identity"][:16]
    with serving() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_ENTITY", "someone")
        dashboards.cell(offline, result, "online", offline.folder)
        sent = server.asked("UpsertBucket")
        assert {(one["name"], one["project"]) for one in sent} == {(run, "adapterbench")}
        assert (sent[0]["groupName"], sent[0]["jobType"], sent[0]["program"]) == ("smoke", "lora", "benchmark")
        assert set(sent[0]["tags"]) == {"chnsent", "4 shots"}
        history = server.lines(run, "wandb-history.jsonl")
        assert [(row["_step"], row["loss"]) for row in history] == [(1, 2.0), (2, 1.5), (3, 1.0)]
        (kept,) = [json.loads(body) for path, body in server.said if path == "/put/wandb-summary.json"]
        assert {name: kept[name] for name in ("score", "dev_score")} == {"score": 0.25, "dev_score": 0.5}
        bodies = b"".join(body for _, body in server.said)
        wandb.teardown()
    assert KEY.encode() not in bodies
    assert os.uname().nodename.encode() not in re.findall(rb"[\w.-]+", bodies)
    assert not [path for path in offline.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_uploading_again_sends_the_summary_alone(offline, caught, monkeypatch, capfd):
    monkeypatch.setattr(views, "save", lambda shown, entity: [f"{entity}/{shown.run}"])
    found = dashboards.write(offline, "online")
    *cells, last = caught
    assert {run.options["id"] for run in cells} == {r["identity"][:16] for r in Store(offline.folder).results()}
    assert all(run.ended == 1 and run.options["mode"] == "online" for run in caught)
    assert found.views == [f"someone/{last.options['id']}"]
    caught.clear()
    assert dashboards.write(offline, "online") == found
    assert [run.options["id"] for run in caught] == [last.options["id"]]
    assert [set(values) for _, values in caught[0].logged] == [set(values) for _, values in last.logged]
    sent = json.dumps([[run.options, run.logged, run.summary] for run in cells], default=str)
    assert KEY not in sent + "".join(capfd.readouterr())


def test_what_wandb_sync_uploaded_is_not_sent_again(offline, caught, monkeypatch):
    monkeypatch.setattr(views, "save", lambda shown, entity: [])
    dashboards.write(offline, "offline")
    synced = caught[0].options["id"]
    (offline.folder / "wandb" / f"offline-run-20260101_000000-{synced}" / f"run-{synced}.wandb.synced").touch()
    caught.clear()
    dashboards.write(offline, "online")
    assert len(caught) == 6 + 1
    assert synced not in {run.options["id"] for run in caught}


def test_panels_are_saved_in_place_of_those_of_the_last_time(monkeypatch):
    """What goes to the server: the second time both change what the first time made."""
    import wandb
    import wandb_workspaces.reports.v2.interface as reports
    from wandb_workspaces.workspaces import internal

    kept: dict[str, dict] = {}  # id -> view, as the server has it

    def answer(_: object, query: str, sent: dict) -> dict:
        if "mutation" in query:
            view = {"id": sent.get("id") or f"id{len(kept)}", "name": sent["name"], "displayName": sent["displayName"],
                    "spec": sent["spec"], "project": {"id": "p", "name": sent["projectName"], "entityName": "someone"}}  # fmt: skip
            kept[view["id"]] = view | {"type": sent["type"]}
            return {"upsertView": {"view": view, "inserted": True}}
        named = [{"node": view} for view in kept.values() if view["name"] == sent["viewName"]]
        return {"project": {"allViews": {"edges": named}}}

    class Api:
        def __init__(self) -> None:
            self._service_api = SimpleNamespace(app_url="https://wandb.ai")

        def projects(self, _: str) -> list:
            return [SimpleNamespace(name="adapterbench")]

        def reports(self, path: str) -> list:
            assert path == "someone/adapterbench"
            pages = [view for view in kept.values() if view["type"] == "runs"]
            return [SimpleNamespace(id=view["id"], display_name=view["displayName"]) for view in pages]

    monkeypatch.setattr(wandb, "Api", Api)
    for module in (internal, reports):
        monkeypatch.setattr(module, "execute_graphql", answer)
    shown = views.Shown("adapterbench", "0123456789abcdef", "demo on tiny", "1 cell", "choice tasks", [4], ["ties"], [])
    first = views.save(shown, "someone")
    assert first == ["https://wandb.ai/someone/adapterbench?nw=0123456789a", first[1]]
    assert "adapterbench/reports/demo-on-tiny--id1" in first[1]
    assert views.save(shown, "someone") == first
    assert sorted(kept) == ["id0", "id1"]
    views.save(shown._replace(run="fedcba9876543210", title="small on tiny"), "someone")
    assert len(kept) == 4


def test_uploading_without_an_account_is_refused(offline, monkeypatch):
    monkeypatch.setattr(dashboards, "key", lambda: None)
    with pytest.raises(UsageError, match="wandb login"):
        dashboards.write(offline, "online")
    assert not (offline.folder / "wandb").exists()


# -------------------------------------------------------------------- tables, limits


def test_differences_and_ties_are_numbers(small, answered):
    right = {"lora": [1, 1, 1, 0], "prompt": [1, 0, 0, 0], "zero_shot": [0, 0, 0, 0]}
    for planned in grid.plan(small):
        answered(small, planned, right[planned.cell.method] * 30)
    _, results, _ = report.collect(small, Store(small.folder))
    table, worth = board(small, results), standings(board(small, results), results)
    columns, rows = tables.differences(worth)
    row = dict(zip(columns, next(r for r in rows if r[:4] == ["prompt", "lora", "16", "chnsent"]), strict=True))
    assert (row["difference"], row["difference_seeds"]) == (-50.0, 3)
    assert isclose((row["difference_low"] + row["difference_high"]) / 2, -50.0, abs_tol=1e-3)
    assert row["difference_p"] < 0.05 < row["detectable"]
    assert len(rows) == 2 * 2 * (3 + 3)  # methods, shots, averages and tasks
    columns, rows = tables.ties(table, worth)
    found = {(r[0], r[2]): dict(zip(columns, r, strict=True)) for r in rows if r[1] == "4"}
    assert [found[name, "choice tasks"]["ties"] for name in right] == ["a", "b", ""]
    assert [found[name, "choice tasks"]["average_rank"] for name in right] == [1.0, 2.0, None]
    assert found["lora", "target tasks"]["mean"] == 75.0
    columns, rows = tables.leaderboard(table, worth, 4)
    lines = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert [lines[name]["mean"] for name in right] == [75.0, 25.0, 0.0]
    assert [lines[name]["pareto"] for name in right] == [
        True,
        False,
        False,
    ]  # both train 1,000; a control is in no race
    assert lines["prompt"]["difference"] == -50.0
    assert isclose(lines["lora"]["log10_trained_parameters"], log10(1000))


def test_a_mean_curve_carries_the_last_value_of_a_cell_that_stopped():
    def cell(method: str, steps: int, loss: float) -> dict:
        curve = [[step, loss] for step in range(1, steps + 1)]
        at = {"method": method, "shots": 4, "stage": "target"}
        return {"cell": at, "training": {"loss": curve, "dev": [[steps, loss / 10, 0.0]]}}

    columns, rows = tables.curves([cell("lora", 10, 1.0), cell("lora", 40, 3.0)], 4)
    assert columns == ["method", "step", "loss", "dev_score", "cells"]
    assert [row[1] for row in rows] == list(range(2, 41, 2))
    assert {row[2] for row in rows} == {2.0}  # not 3.0 once the first has stopped
    assert [row[3] for row in rows] == [None] * 4 + [0.1] * 15 + [0.2]
    assert tables.curves([cell("lora", 10, 1.0)], 16)[1] == []


def test_a_run_gets_few_points_and_the_last_of_them():
    training = {"loss": [[step, 1 / step] for step in range(1, 201)], "dev": [[100, 0.5, 0.0], [199, 0.6, 0.0]]}
    found = dict(tables.points(training))
    assert list(found) == sorted(found)
    assert len([1 for values in found.values() if "loss" in values]) == tables.POINTS
    assert (found[200], found[199]) == ({"loss": 1 / 200}, {"dev_score": 0.6})
    assert found[100] == {"loss": 1 / 100, "dev_score": 0.5}


def test_tables_and_names_stay_within_what_wandb_shows(small, fake, monkeypatch):
    for planned in grid.plan(small):
        fake(small, planned, 0.25)
    _, results, _ = report.collect(small, Store(small.folder))
    table, worth = board(small, results), standings(board(small, results), results)
    whole = tables.every(table, worth, results)
    monkeypatch.setattr(tables, "ROWS", 10)
    parts = tables.every(table, worth, results)
    cells = [rows for name, (_, rows) in parts.items() if name.partition("/")[0] == "cells"]
    assert [len(rows) for rows in cells] == [10, 10, 10, 9]
    assert sum(cells, []) == whole["cells"][1]
    assert all(len(rows) <= 10 for _, rows in parts.values())
    assert len(whole) == 5 + 3 * 2  # more shots, three more tables; more methods, tasks and seeds, none


def test_a_grid_of_too_many_cells_has_the_summary_alone(offline, caught, monkeypatch):
    monkeypatch.setattr(dashboards, "RUNS", 6)
    found = dashboards.write(offline, "offline")
    assert (found.cells, found.left) == (0, 7)
    assert [run.options["job_type"] for run in caught] == ["summary"]
