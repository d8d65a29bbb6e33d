"""Records from the hub through the libraries that fetch them: read as the original files are, and fetched once."""

import os
import subprocess
import sys

import pytest

import tasks
from tasks.core.types import UsageError
from tests.end_to_end.network.conftest import FILES, TABLES, model, renumbered, rows
from tests.support import hub_copies
from tests.support.hub_server import environment, online, point


@pytest.mark.parametrize("name", tasks.TASK_NAMES)
def test_a_task_reads_the_hubs_copy_as_it_reads_the_original_files(name, full, originals, tmp_path, monkeypatch):
    point(monkeypatch, full, tmp_path)
    ours, theirs = (
        tasks.load_task(name)(data_source="local", data_dir=originals),
        tasks.load_task(name)(data_source="hub"),
    )
    theirs.prepare_data()
    online(monkeypatch, False)  # all of it is here now
    for part in ("train", "test"):
        assert list(theirs.read_examples(part)) == list(ours.read_examples(part))
    assert set(theirs.record_source.find_parts()) == {"train", "test"} | (
        {"dev"} & set(theirs.record_source.find_parts())
    )
    if "dev" in theirs.record_source.find_parts():
        assert list(theirs.read_examples("dev"))


def test_json_lines_on_the_hub_are_read_as_its_tables(hub, originals):
    its = tasks.load_task("amazon").hub
    lines = {part: (originals / "amazon" / f"{part}.jsonl").read_bytes() for part in ("train", "test")}
    card = "---\nconfigs:\n- config_name: zh\n  data_files:\n"
    for part in ("train", "validation", "test"):
        card += f"  - split: {part}\n    path: zh/{part}.jsonl\n"
    files = {"README.md": f"{card}---\n", "zh/validation.jsonl": lines["test"]}
    hub.put("dataset", its.id, files | {f"zh/{part}.jsonl": text for part, text in lines.items()}, its.revision)
    ours = tasks.load_task("amazon")(data_source="local", data_dir=originals)
    assert list(tasks.load_task("amazon")(data_source="hub").read_examples("test")) == list(ours.read_examples("test"))


@pytest.mark.parametrize("name", [TABLES, FILES])
def test_what_was_fetched_is_read_without_a_question(name, hub):
    first = rows(name)
    asked = len(hub.asked)
    assert rows(name) == first
    assert len(hub.asked) == asked


def test_a_cache_of_another_revision_is_not_read(hub, monkeypatch):
    task = tasks.load_task(TABLES)
    rows(TABLES)
    monkeypatch.setattr(task, "hub", task.hub._replace(revision="e" * 40))
    with pytest.raises(UsageError, match="no such revision"):
        rows(TABLES)
    online(monkeypatch, False)
    with pytest.raises(UsageError, match=r"ocnli: data set clue/clue is not in the hub's cache.*fetch it first"):
        rows(TABLES)


OTHER = """
from methods.core.backbone_files import find_or_download_backbone
from tasks.core.download import fetch_file, load_hub_dataset
from tasks.core.sources import get_cache_folder, get_github_raw_url
tables = load_hub_dataset("x", "clue/clue", "ocnli", "28178267a609dd08bdc703dd6c931dfc2c2f4431")
raw = fetch_file("x", f"{get_github_raw_url()}/lsvih/chinese-customer-review/c1d68637f5fc1486a2483d58083669baaae7bd9d/baidu/test.txt",
           get_cache_folder() / "test.txt")
print(tables["train"].num_rows, raw.stat().st_size > 0, find_or_download_backbone("someorg/tiny").is_dir())
"""


def test_a_hub_that_fails_in_the_middle_does_not_make_an_older_revision_be_read(hub, originals, monkeypatch):
    task = tasks.load_task(TABLES)
    rows(TABLES)
    renumbered(hub)
    monkeypatch.setattr(task, "hub", task.hub._replace(revision="e" * 40))
    hub.trouble("resolve", status=500)
    with pytest.raises(UsageError, match="the download failed, and the cache holds revision 28178267"):
        rows(TABLES)
    hub.heal()
    assert len(rows(TABLES)) == len(hub_copies.records(TABLES, "train", originals))


def test_another_process_finds_hub_and_code_host_by_its_environment(hub, tmp_path):
    hub.put("model", "someorg/tiny", model())
    hub.trouble("large", cut=1000, times=1)  # over which no library may lose a word
    there = os.environ | environment(hub, tmp_path / "other")
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True, timeout=120, env=there)
    assert (done.stdout, done.stderr) == ("42 True True\n", "")
    assert list((tmp_path / "other").rglob("model.safetensors"))
