"""What a hub and a network do wrong: one line, nothing written, and the next run is whole."""

from hashlib import sha256

import pytest

import tasks
from benchmark.cli.main import main
from tasks.core import download
from tasks.core.types import UsageError
from tests.end_to_end.network.conftest import FILES, TABLES, gone, ill, renumbered, rows
from tests.support import hub_copies
from tests.support.hub_server import Hub


def without_train(hub: Hub) -> None:
    for files in hub.repositories.values():
        for path in [path for path in files if "train" in path]:
            del files[path]


def without_labels(hub: Hub) -> None:
    its = tasks.load_task(TABLES).hub
    data = hub_copies.parquet([{"sentence1": "甲", "sentence2": "乙"}] * 20)
    hub.put("dataset", its.id, {f"ocnli/{split}-00000-of-00001.parquet": data for split in ("train", "validation", "test")},
            its.revision)  # fmt: skip
    raw = tasks.load_task(FILES).hub
    hub.put("raw", raw.repository, {"baidu/train.txt": '{"s": "甲"}\n' * 20}, raw.commit)


def no_split(hub: Hub) -> None:
    its = tasks.load_task(TABLES).hub
    card = "---\nconfigs:\n- config_name: ocnli\n  data_files:\n  - split: train\n    path: ocnli/train-*\n---\n"
    hub.put("dataset", its.id, {"README.md": card}, its.revision)


def no_table(hub: Hub) -> None:
    its = tasks.load_task(TABLES).hub
    hub.put("dataset", its.id, {"ocnli/train-00000-of-00001.parquet": b"<html>"}, its.revision)


def script(hub: Hub) -> None:
    its = tasks.load_task(TABLES).hub
    hub.put("dataset", its.id, {"clue.py": "print('ran')"}, its.revision)


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
    words = ["--profile", "smoke", "--methods", "lora", "--tasks", name, "--workers", "1", "--results",
             str(tmp_path / "results"), "--source", "hub", "--backbone", str(model_folders["qwen3"])]  # fmt: skip
    with monkeypatch.context() as patch:
        if any(trouble.wait for trouble in hub.troubles):
            patch.setattr(download, "READ_TIMEOUT_SECONDS", 0.2)
        assert main(["run", *words]) == 2
    assert len(hub.asked) < 30, hub.asked  # it gives up soon
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
    its = tasks.load_task(TABLES).hub
    last = hub.repositories["dataset", its.id, its.revision]["ocnli/test-00000-of-00001.parquet"]
    hub.trouble(sha256(last).hexdigest(), cut=100)
    with pytest.raises(UsageError, match="completed downloads are kept"):
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
