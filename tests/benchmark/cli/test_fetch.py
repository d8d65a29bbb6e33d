"""Fetching from a stand-in of the hub, through the libraries that do it; and what needs no network at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.cli import fetch
from benchmark.cli.main import main
from benchmark.cli.session import create_console
from benchmark.config import loading
from benchmark.scheduling import requirements
from tests.support import hub_copies
from tests.support.hub_server import Hub, online, point, serving

MODEL, TABLES, FILES = "someorg/tiny", "ocnli", "finre"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    hub_copies.write(folder, TABLES, FILES)
    return folder


@pytest.fixture
def hub(originals: Path, model_folders: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as found:
        hub_copies.put(found, originals, TABLES, FILES)
        weights = {path.name: path.read_bytes() for path in model_folders["qwen3"].iterdir()}
        found.put("model", MODEL, weights | {"pytorch_model.bin": b"a pickle", "modeling.py": "import os"})
        point(monkeypatch, found, tmp_path / "first")
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        yield found


def words(hub: Hub, *more: str) -> list[str]:
    revision = hub.heads["model", MODEL]
    grid = ["--profile", "smoke", "--source", "hub", "--methods", "lora", "--tasks", f"{TABLES},{FILES}"]
    return ["fetch", *grid, "--backbone", MODEL, "--set", f"backbone.revision={revision}", *more]


def ran(*asked: str) -> int:
    return main([*asked])


def test_a_dry_run_shows_what_is_needed_and_asks_nobody(hub, capsys, monkeypatch):
    online(monkeypatch, yes=False)
    assert ran(*words(hub, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert hub.asked == []
    for text in (MODEL, "clue/clue", "thunlp/Chinese_NRE", "28178267a609", "3 of 3 to fetch"):
        assert text in said
    assert ran("fetch", "--profile", "paper", "--dry-run") == 0
    assert "about 14.2 GB" in capsys.readouterr().out


def test_all_of_it_is_fetched_checked_and_used_without_a_network_elsewhere(hub, capsys, tmp_path, monkeypatch):
    assert ran(*words(hub)) == 0
    said = capsys.readouterr().out
    assert "3/3 finre" in said
    assert "test examples" in said
    assert "copy these there" in said
    assert not hub.fetched("pytorch_model|modeling.py")
    hub.asked.clear()
    assert ran(*words(hub, "--dry-run")) == 0
    assert "everything is present" in capsys.readouterr().out
    assert ran(*words(hub)) == 0
    assert not hub.fetched("")  # a second time only looks
    # the caches lie elsewhere, and there is no network
    (tmp_path / "first").rename(tmp_path / "second")
    point(monkeypatch, hub, tmp_path / "second")
    online(monkeypatch, yes=False)
    assert ran(*words(hub)) == 0
    assert not hub.asked


def test_what_has_arrived_is_not_fetched_again(hub, capsys):
    hub.trouble("/large/", cut=5000)
    assert ran(*words(hub)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "backbone" in error
    assert "run it again" in error
    hub.heal()
    hub.asked.clear()
    assert ran(*words(hub)) == 0
    assert hub.fetched("/large/")
    assert not hub.fetched("config.json|tokenizer.json|FinRE")


def test_a_damaged_weight_is_fetched_once_more(hub, capsys, tmp_path):
    assert ran(*words(hub)) == 0
    blob = next((tmp_path / "first" / "hf" / "hub").rglob("*.safetensors")).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1  # as long as before
    blob.write_bytes(data)
    hub.asked.clear()
    assert ran(*words(hub)) == 0
    assert hub.fetched("/large/")
    assert "complete" in capsys.readouterr().out
    assert not fetch.find_damaged_files(requirements.find_backbone_folder(MODEL, hub.heads["model", MODEL]))


def test_one_that_fails_does_not_keep_the_others_away(hub, capsys):
    hub.trouble("FinRE/train", status=404)
    assert ran(*words(hub)) == 2
    out, error = capsys.readouterr()
    assert "2/3 ocnli" in out
    assert "1 of 3 failed (finre)" in error
    assert len(error.splitlines()) == 1


def test_no_network_is_one_line_in_seconds(hub, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert ran(*words(hub)) == 2
    assert "http://127.0.0.1:9 cannot be reached (Connection refused)" in capsys.readouterr().err
    online(monkeypatch, yes=False)
    assert ran(*words(hub)) == 2
    assert "HF_HUB_OFFLINE is set, and backbone is missing" in capsys.readouterr().err


def test_no_room_is_said_before_anything_is_fetched(hub, capsys, monkeypatch):
    monkeypatch.setattr("benchmark.cli.fetch.shutil.disk_usage", lambda path: type("Disk", (), {"free": 5e8}))
    asked = ["--backbone", "Qwen/Qwen2.5-7B", "--methods", "lora", "--tasks", TABLES, "--source", "hub"]
    assert ran("fetch", "--profile", "smoke", *asked) == 2
    assert "477 MB free, 14.2 GB are needed; set HF_HOME" in capsys.readouterr().err
    assert not hub.fetched("Qwen")


def test_what_lies_here_needs_no_network(capsys, tmp_path):
    assert ran("fetch", "--profile", "smoke", "--methods", "lora", "--tasks", "chnsent") == 0
    said = capsys.readouterr().out
    assert "test examples" in said
    assert "smoke needs no network" in said
    assert ran("fetch", "--profile", "smoke", "--source", "local", "--data-dir", str(tmp_path), "--tasks", "drcd") == 2
    assert "no records in" in capsys.readouterr().err


def test_sources_are_needed_only_by_what_learns_from_them():
    def names(*methods: str) -> tuple[str, ...]:
        return requirements.list_required_tasks(loading.load_profile("paper", {"methods": list(methods)}))

    targets = loading.load_profile("paper").tasks
    assert names("lora", "zero_shot") == targets
    assert set(names("spot")) == {*targets, *loading.load_profile("paper").sources} == set(names("shared_lora"))


def test_the_moving_advice_names_the_folders_that_hold_it(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "first" / "hf"))
    assert dict(fetch.list_cache_folders()) == {
        "HF_HOME": tmp_path / "first" / "hf",
        "ADAPTERBENCH_CACHE": tmp_path / "first" / "adapterbench",
    }
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "other"))
    assert set(dict(fetch.list_cache_folders())) == {"HF_HUB_CACHE", "HF_DATASETS_CACHE", "ADAPTERBENCH_CACHE"}


def test_a_host_that_answers_with_an_error_is_there(hub):
    assert requirements.find_unreachable_hosts([hub.url, "http://127.0.0.1:9"]) == {
        "http://127.0.0.1:9": "Connection refused"
    }
    assert create_console() is not None
