"""The hub without a network: what it would read, from folders of the same shape; and what it says when offline."""

import socket
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

import tasks
from tasks.core import sources
from tasks.core.formats import make_tsv_parser
from tasks.core.sources import File, GitHub, GitHubSource, Hub, HubSource, write_synthetic_records
from tasks.core.types import UsageError
from tasks.synthetic import generators


def test_hub_columns_are_renamed_and_ids_become_names(tmp_path):
    features = Features({"text": Value("string"), "score": ClassLabel(names=["neutral", "entailment"])})
    table = Dataset.from_dict({"text": ["甲", "乙", "丙"], "score": [1, 0, -1]}, features=features)
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    hub = Hub(str(tmp_path), None, "main", {"train": "train", "test": "validation"}, {"score": "label"})
    found = HubSource("x", hub)
    assert set(found.find_parts()) == {"train", "test"}
    rows = list(found.iter_records(found.find_parts()["test"]))
    assert rows == [{"text": t, "label": y} for t, y in zip("甲乙丙", ["entailment", "neutral", "-"], strict=True)]


def test_raw_files_are_read_by_the_parser_of_the_local_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path))
    folder = tmp_path / "raw" / "owner/name" / "abc" / "data"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_bytes("\ufeff甲\t1\r\n\r\n乙\t0".encode())
    (folder / "class.txt").write_text("sports\nfinance")
    files = (File("train", ("train.txt",), make_tsv_parser("text", "label"), "class.txt"),)
    raw = GitHubSource("x", files, GitHub("owner/name", "abc", "data"))
    rows = list(raw.iter_records(raw.find_parts()["train"]))
    assert rows == [{"text": "甲", "label": "finance"}, {"text": "乙", "label": "sports"}]
    assert "abc" in raw.title


@pytest.mark.parametrize("name", tasks.TASK_NAMES)
def test_every_task_pins_a_revision(name):
    task = tasks.load_task(name)
    revision = task.hub.commit if isinstance(task.hub, GitHub) else task.hub.revision
    assert len(revision) == 40
    assert int(revision, 16)


@pytest.mark.parametrize("name", ["ocnli", "finre"])
def test_offline_hub_says_at_once_what_to_do(name, monkeypatch):
    tried: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: tried.append(given))
    monkeypatch.setattr(time, "sleep", tried.append)
    with pytest.raises(
        UsageError, match=f"^{name}: .*HF_HUB_OFFLINE is set; fetch it first, or use --source sample, or --source local"
    ) as caught:
        tasks.load_task(name)(data_source="hub").prepare_data()
    assert not tried
    assert "\n" not in str(caught.value)


def test_no_network_is_noticed_without_the_retries_of_datasets(monkeypatch):
    def refuse(*args, **options):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(
        UsageError, match=r"ocnli: data set clue/clue: huggingface.co cannot be reached; .*--source sample"
    ):
        tasks.load_task("ocnli")(data_source="hub").prepare_data()


def test_samples_are_written_once_and_by_whoever_comes_first(tmp_path):
    with get_context("fork").Pool(3) as pool:
        homes = pool.starmap(write_synthetic_records, [("bq", tmp_path)] * 3)
    assert set(homes) == {tmp_path / f"samples-{generators.hash_generators()}"}
    assert sorted(path.name for path in homes[0].iterdir()) == ["bq"]  # no scratch folder stays
    before = (homes[0] / "bq" / "train.csv").stat().st_mtime_ns
    write_synthetic_records("bq", tmp_path)
    assert (homes[0] / "bq" / "train.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()])
def test_a_damaged_sample_is_written_again(spoil, tmp_path):
    path = write_synthetic_records("bq", tmp_path) / "bq" / "train.csv"
    before = path.read_bytes()
    spoil(path)
    sources.VERIFIED_FOLDERS.clear()  # as in another process
    write_synthetic_records("bq", tmp_path)
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parents[1].iterdir()) == ["bq"]


def test_whoever_comes_second_leaves_the_samples_of_the_first_where_they_are(tmp_path, monkeypatch):
    """The first is done while the second still writes, and reads on."""
    real, places = generators.write_task_files, []

    def slow(task, folder):
        if not places:
            monkeypatch.setattr(generators, "write_task_files", real)
            places.append(write_synthetic_records("bq", tmp_path) / "bq")
            places.append(places[0].stat().st_ino)
            sources.VERIFIED_FOLDERS.clear()  # the second is another process
        real(task, folder)

    monkeypatch.setattr(generators, "write_task_files", slow)
    assert write_synthetic_records("bq", tmp_path) / "bq" == places[0]
    assert places[0].stat().st_ino == places[1]


def test_a_damaged_sample_is_mended_while_others_read_it(tmp_path, monkeypatch):
    folder = write_synthetic_records("bq", tmp_path) / "bq"
    (folder / "train.csv").write_text("")
    (folder / "more").write_text("of an earlier version")
    names, real = {path.name for path in folder.iterdir()} - {"more"}, Path.replace

    def replace(path, target):
        assert names <= {one.name for one in folder.iterdir()}
        real(path, target)
        assert names <= {one.name for one in folder.iterdir()}

    monkeypatch.setattr(Path, "replace", replace)
    sources.VERIFIED_FOLDERS.clear()
    write_synthetic_records("bq", tmp_path)
    sources.VERIFIED_FOLDERS.clear()
    assert sources.is_intact(folder)


def test_a_half_written_sample_is_never_seen(tmp_path, monkeypatch):
    def broken(task, folder):
        (folder / task).mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(generators, "write_task_files", broken)
    with pytest.raises(OSError, match="disk full"):
        write_synthetic_records("bq", tmp_path)
    assert list((tmp_path / f"samples-{generators.hash_generators()}").iterdir()) == []


def test_the_cache_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path))
    assert sources.get_cache_folder() == tmp_path
