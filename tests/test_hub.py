"""Loading from the hub through the libraries that do it, from a stand-in: what is read, and what is said in trouble."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import datasets
import pytest

import methods
import tasks
from benchmark.__main__ import entry
from methods.backbone import Backbone
from methods.files import find
from tasks import network
from tasks.example import UsageError
from tests import hub_copies
from tests.hub_server import Hub, environment, online, point, serving

TABLES, FILES = "ocnli", "cote_bd"  # a task of each way: tables of the hub, raw files of a code host
TINY = Path(methods.__file__).parent / "tiny"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    hub_copies.write(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def full(originals: Path) -> Iterator[Hub]:
    """A hub with all tasks, in good health."""
    with serving() as found:
        hub_copies.put(found, originals)
        yield found


@pytest.fixture
def hub(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of two tasks that may fall ill; no cache; nobody sleeps between two tries."""
    with serving() as found:
        hub_copies.put(found, originals, TABLES, FILES)
        point(monkeypatch, found, tmp_path)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        yield found


def rows(name: str, part: str = "train") -> list[dict]:
    origin = tasks.load(name)(source="hub").origin
    return list(origin.rows(origin.parts()[part]))


# -------------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", tasks.NAMES)
def test_a_task_reads_the_hubs_copy_as_it_reads_the_original_files(name, full, originals, tmp_path, monkeypatch):
    point(monkeypatch, full, tmp_path)
    ours, theirs = tasks.load(name)(source="local", data_dir=originals), tasks.load(name)(source="hub")
    theirs.prepare_data()
    online(monkeypatch, False)  # all of it is here now
    for part in ("train", "test"):
        assert list(theirs.read(part)) == list(ours.read(part))
    assert set(theirs.origin.parts()) == {"train", "test"} | ({"dev"} & set(theirs.origin.parts()))
    if "dev" in theirs.origin.parts():
        assert list(theirs.read("dev"))


def test_json_lines_on_the_hub_are_read_as_its_tables(hub, originals):
    its = tasks.load("amazon").hub
    lines = {part: (originals / "amazon" / f"{part}.jsonl").read_bytes() for part in ("train", "test")}
    card = "---\nconfigs:\n- config_name: zh\n  data_files:\n"
    for part in ("train", "validation", "test"):
        card += f"  - split: {part}\n    path: zh/{part}.jsonl\n"
    files = {"README.md": f"{card}---\n", "zh/validation.jsonl": lines["test"]}
    hub.put("dataset", its.id, files | {f"zh/{part}.jsonl": text for part, text in lines.items()}, its.revision)
    ours = tasks.load("amazon")(source="local", data_dir=originals)
    assert list(tasks.load("amazon")(source="hub").read("test")) == list(ours.read("test"))


@pytest.mark.parametrize("name", [TABLES, FILES])
def test_what_was_fetched_is_read_without_a_question(name, hub):
    first = rows(name)
    asked = len(hub.asked)
    assert rows(name) == first
    assert len(hub.asked) == asked


def test_a_cache_of_another_revision_is_not_read(hub, monkeypatch):
    task = tasks.load(TABLES)
    rows(TABLES)
    monkeypatch.setattr(task, "hub", task.hub._replace(revision="e" * 40))
    with pytest.raises(UsageError, match="no such revision"):
        rows(TABLES)
    online(monkeypatch, False)
    with pytest.raises(UsageError, match=r"ocnli: data set clue/clue is not in the hub's cache.*fetch it first"):
        rows(TABLES)


OTHER = """
from methods.files import find
from tasks.network import dataset, file
from tasks.source import cache_folder, raw_root
tables = dataset("x", "clue/clue", "ocnli", "28178267a609dd08bdc703dd6c931dfc2c2f4431")
raw = file("x", f"{raw_root()}/lsvih/chinese-customer-review/c1d68637f5fc1486a2483d58083669baaae7bd9d/baidu/test.txt",
           cache_folder() / "test.txt")
print(tables["train"].num_rows, raw.stat().st_size > 0, find("someorg/tiny").is_dir())
"""


def test_a_hub_that_fails_in_the_middle_does_not_make_an_older_revision_be_read(hub, originals, monkeypatch):
    task = tasks.load(TABLES)
    rows(TABLES)
    renumbered(hub)
    monkeypatch.setattr(task, "hub", task.hub._replace(revision="e" * 40))
    hub.trouble("resolve", status=500)
    with pytest.raises(UsageError, match="the hub gave up, and its cache holds 28178267"):
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


# -------------------------------------------------------------------- what goes wrong


def gone(hub: Hub) -> None:
    hub.repositories.clear()
    hub.heads.clear()


def renumbered(hub: Hub) -> None:
    """All that is there is another revision."""
    for kind, name, revision in list(hub.repositories):
        hub.put(kind, name, hub.repositories.pop((kind, name, revision)), revision="e" * 40)


def without_train(hub: Hub) -> None:
    for files in hub.repositories.values():
        for path in [path for path in files if "train" in path]:
            del files[path]


def without_labels(hub: Hub) -> None:
    its = tasks.load(TABLES).hub
    data = hub_copies.parquet([{"sentence1": "甲", "sentence2": "乙"}] * 20)
    hub.put("dataset", its.id, {f"ocnli/{split}-00000-of-00001.parquet": data for split in ("train", "validation", "test")},
            its.revision)  # fmt: skip
    raw = tasks.load(FILES).hub
    hub.put("raw", raw.repository, {"baidu/train.txt": '{"s": "甲"}\n' * 20}, raw.commit)


def no_split(hub: Hub) -> None:
    its = tasks.load(TABLES).hub
    card = "---\nconfigs:\n- config_name: ocnli\n  data_files:\n  - split: train\n    path: ocnli/train-*\n---\n"
    hub.put("dataset", its.id, {"README.md": card}, its.revision)


def no_table(hub: Hub) -> None:
    its = tasks.load(TABLES).hub
    hub.put("dataset", its.id, {"ocnli/train-00000-of-00001.parquet": b"<html>"}, its.revision)


def script(hub: Hub) -> None:
    its = tasks.load(TABLES).hub
    hub.put("dataset", its.id, {"clue.py": "print('ran')"}, its.revision)


def ill(pattern: str, **what: float) -> Callable[[Hub], None]:
    return lambda hub: hub.trouble(pattern, **what)


TROUBLES = [
    (TABLES, gone, "has no such repository, or it is private; use --source sample"),
    (TABLES, renumbered, "has no such revision; use --source sample"),
    (TABLES, without_train, "lacks datasets/clue/clue@28178267a609dd08bdc703dd6c931dfc2c2f4431/ocnli/train"),
    (TABLES, no_split, "no split 'validation' in data set clue/clue; there are: train"),
    (TABLES, without_labels, "ocnli, train record 1 of clue/clue: no field 'label'; there are: sentence1, sentence2"),
    (TABLES, no_table, "Parquet"),
    (TABLES, script, "scripts are no longer supported"),
    (TABLES, ill("large", cut=100), "broke off; run it again"),
    (TABLES, ill(".", status=500), "answers 500; run it again"),
    (TABLES, ill("parquet|large", status=503), "answers 503; run it again"),
    (TABLES, ill(".", wait=1), "does not answer in time; run it again"),
    (TABLES, ill(".", status=429), "answers 429; run it again"),
    (FILES, renumbered, "baidu/train.txt: localhost answers 404; use --source sample"),
    (FILES, without_labels, "cote_bd/train.txt:1: no field 'ot'; there are: s"),
    (FILES, ill("train", cut=100), "the connection to localhost broke off; run it again"),
    (FILES, ill(".", status=500), "localhost answers 500; run it again"),
    (FILES, ill(".", wait=1), "localhost does not answer in time; run it again"),
]


@pytest.mark.parametrize(("name", "spoil", "said"), TROUBLES, ids=[f"{name}: {said}" for name, _, said in TROUBLES])
def test_trouble_is_one_line_and_the_next_run_is_whole(
    name, spoil, said, hub, originals, model_folders, tmp_path, monkeypatch, capfd
):
    spoil(hub)
    if any(trouble.wait for trouble in hub.troubles):
        monkeypatch.setattr(network, "ANSWER", 0.2)
    words = ["--profile", "smoke", "--methods", "lora", "--tasks", name, "--workers", "1", "--results",
             str(tmp_path / "results"), "--source", "hub", "--backbone", str(model_folders["qwen3"])]  # fmt: skip
    start = time.perf_counter()
    assert entry(["run", *words]) == 2
    assert time.perf_counter() - start < 10
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert name in error
    assert said in error
    assert len(error.splitlines()) == 1, error
    assert len(error) < 600
    assert not (tmp_path / "results").exists()
    if hub.troubles:  # else the revision is as it is for ever
        hub.heal()
        assert len(rows(name)) == len(hub_copies.records(name, "train", originals))


def test_what_broke_off_goes_on_where_it_stopped(hub, originals):
    hub.trouble("train", cut=1000)
    with pytest.raises(UsageError, match="broke off"):
        rows(FILES)
    hub.heal()
    assert rows(FILES) == hub_copies.records(FILES, "train", originals)
    assert hub.fetched("train")[-1].endswith("bytes=1000-")


def test_a_table_that_broke_off_once_goes_on_by_itself(hub):
    hub.trouble("large", cut=1000, times=1)
    assert len(rows(TABLES)) == 42
    assert len(hub.fetched("large")) == 4  # three splits


def test_whole_tables_are_kept_when_the_next_one_breaks_off(hub):
    its = tasks.load(TABLES).hub
    last = hub.repositories["dataset", its.id, its.revision]["ocnli/test-00000-of-00001.parquet"]
    hub.trouble(sha256(last).hexdigest(), cut=100)
    with pytest.raises(UsageError, match="what has arrived is kept"):
        rows(TABLES)
    hub.heal()
    before = len(hub.fetched("large"))
    assert len(rows(TABLES)) == 42
    assert len(hub.fetched("large")) == before + 1


def test_no_token_goes_to_another_host(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    rows(TABLES), rows(FILES)
    assert hub.tokens
    assert not [path for path in hub.tokens if "large" in path or "/raw/" in path]


# -------------------------------------------------------------------- backbones


def model() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in TINY.iterdir() if path.suffix in (".json", ".safetensors")}


def test_a_backbone_comes_from_the_hub_without_code_and_pickles(hub):
    hub.put("model", "someorg/tiny", model() | {"pytorch_model.bin": b"pickle", "modeling_x.py": b"code"})
    found = Backbone.load("someorg/tiny")
    assert found.fingerprint == Backbone.load("tiny").fingerprint
    assert not [line for line in hub.asked if ".bin" in line or ".py" in line]
    asked = len(hub.asked)
    find("someorg/tiny")
    assert len(hub.asked) == asked


def pickled(hub: Hub) -> None:
    gone(hub)
    files = {path: data for path, data in model().items() if "safetensors" not in path}
    hub.put("model", "someorg/tiny", files | {"pytorch_model.bin": b"pickle"})


BACKBONES = [
    (pickled, "no *.safetensors in the hub's repository, its weights are pickles (pytorch_model.bin)"),
    (gone, "has no such repository, or it is private"),
    (ill("large", cut=1000), "broke off; run it again"),
    (ill(".", status=500), "answers 500; run it again"),
    (ill(".", wait=1), "does not answer in time; run it again"),
]


@pytest.mark.parametrize(("spoil", "said"), BACKBONES, ids=[said for _, said in BACKBONES])
def test_a_backbone_that_cannot_be_had_is_said_in_one_line(spoil, said, hub, tmp_path, monkeypatch, capfd):
    hub.put("model", "someorg/tiny", model())
    spoil(hub)
    if any(trouble.wait for trouble in hub.troubles):
        monkeypatch.setattr(network, "ANSWER", 0.2)
    words = ["--profile", "smoke", "--methods", "lora", "--tasks", "chnsent", "--workers", "1", "--results",
             str(tmp_path / "results"), "--backbone", "someorg/tiny"]  # fmt: skip
    assert entry(["run", *words]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: backbone 'someorg/tiny'")
    assert said in error
    assert not (tmp_path / "results").exists()
    if hub.troubles:
        hub.heal()
        assert find("someorg/tiny").is_dir()


def test_a_backbones_revision_must_be_there(hub):
    hub.put("model", "someorg/tiny", model())
    with pytest.raises(UsageError, match="has no such revision; give --backbone tiny"):
        find("someorg/tiny", "e" * 40)
