"""What would be sent to W&B, caught on its way."""

import json
import os
import re
from types import SimpleNamespace

import pytest

from benchmark.analysis import load
from benchmark.grid import planner
from benchmark.reporting.wandb import export, views
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError
from tests.support.wandb_runs import KEY
from tests.support.wandb_server import serving


def test_the_client_sends_one_run_under_its_own_id_and_never_the_key(offline, monkeypatch):
    """Over HTTP, to a server of our own."""
    import wandb

    wandb.teardown()  # what earlier tests left running has asked for the address already
    _, results, _ = load.collect_results(offline, ResultStore(offline.results_folder))
    result = next(result for result in results if result.key == "lora/chnsent/4/1")
    run = result.identity[:16]
    with serving() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_ENTITY", "someone")
        export.export_cell(offline, result, "online", offline.results_folder)
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
    assert not [
        path for path in offline.results_folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]


def test_uploading_again_sends_the_summary_alone(offline, caught, monkeypatch, capfd):
    monkeypatch.setattr(views, "save_views", lambda shown, entity: [f"{entity}/{shown.summary_run_id}"])
    found = export.export_results(offline, "online")
    *cells, last = caught
    assert {run.options["id"] for run in cells} == {
        r.identity[:16] for r in ResultStore(offline.results_folder).load_results()
    }
    assert all(run.ended == 1 and run.options["mode"] == "online" for run in caught)
    assert found.view_locations == [f"someone/{last.options['id']}"]
    caught.clear()
    assert export.export_results(offline, "online") == found
    assert [run.options["id"] for run in caught] == [last.options["id"]]
    assert [set(values) for _, values in caught[0].logged] == [set(values) for _, values in last.logged]
    sent = json.dumps([[run.options, run.logged, run.summary] for run in cells], default=str)
    assert KEY not in sent + "".join(capfd.readouterr())


def test_what_wandb_sync_uploaded_is_not_sent_again(offline, caught, monkeypatch):
    monkeypatch.setattr(views, "save_views", lambda shown, entity: [])
    export.export_results(offline, "offline")
    synced = caught[0].options["id"]
    (offline.results_folder / "wandb" / f"offline-run-20260101_000000-{synced}" / f"run-{synced}.wandb.synced").touch()
    caught.clear()
    export.export_results(offline, "online")
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
    shown = views.ViewContents(
        "adapterbench", "0123456789abcdef", "demo on tiny", "1 cell", "choice tasks", [4], ["ties"], []
    )
    first = views.save_views(shown, "someone")
    assert first == ["https://wandb.ai/someone/adapterbench?nw=0123456789a", first[1]]
    assert "adapterbench/reports/demo-on-tiny--id1" in first[1]
    assert views.save_views(shown, "someone") == first
    assert sorted(kept) == ["id0", "id1"]
    views.save_views(shown._replace(summary_run_id="fedcba9876543210", title="small on tiny"), "someone")
    assert len(kept) == 4


def test_uploading_without_an_account_is_refused(offline, monkeypatch):
    monkeypatch.setattr(export, "find_api_key", lambda: None)
    with pytest.raises(UsageError, match="wandb login"):
        export.export_results(offline, "online")
    assert not (offline.results_folder / "wandb").exists()


def test_a_grid_of_too_many_cells_has_the_summary_alone(offline, caught, monkeypatch):
    monkeypatch.setattr(export, "MAX_CELL_RUNS", 6)
    found = export.export_results(offline, "offline")
    assert (found.num_cell_runs, found.num_skipped) == (0, 7)
    assert [run.options["job_type"] for run in caught] == ["summary"]


def test_no_text_of_a_data_set_is_sent(small, answered, caught, monkeypatch):
    """Predictions stay here: what was asked, expected and answered is nobody's business."""
    monkeypatch.setattr(views, "save_views", lambda shown, entity: [json.dumps(shown, default=str)])
    secret = "a text that is not ours"
    for planned in planner.plan_grid(small):
        columns = {name: [secret] * 4 for name in ("uid", "asked", "target", "predicted", "group")}
        answered(small, planned, [1.0, 0.0, 1.0, 1.0], **columns)
    found = export.export_results(small, "online")
    sent = [[run.options, run.logged, run.summary] for run in caught]
    said = json.dumps([*sent, found.view_locations], default=lambda one: getattr(one, "data", str(one)))
    assert "75.0" in said
    assert secret not in said
