"""The hub without a network: what it would read, from folders of the same shape; and what it says when offline."""

import socket
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

import tasks
from tasks import samples, source
from tasks.example import UsageError
from tasks.formats import tabbed
from tasks.source import File, GitHub, Hub, Parquet, Raw, sample_folder


def test_hub_columns_are_renamed_and_ids_become_names(tmp_path):
    features = Features({"text": Value("string"), "score": ClassLabel(names=["neutral", "entailment"])})
    table = Dataset.from_dict({"text": ["甲", "乙", "丙"], "score": [1, 0, -1]}, features=features)
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    hub = Hub(str(tmp_path), None, "main", {"train": "train", "test": "validation"}, {"score": "label"})
    found = Parquet("x", hub)
    assert set(found.parts()) == {"train", "test"}
    rows = list(found.rows(found.parts()["test"]))
    assert rows == [{"text": t, "label": y} for t, y in zip("甲乙丙", ["entailment", "neutral", "-"], strict=True)]


def test_raw_files_are_read_by_the_parser_of_the_local_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path))
    folder = tmp_path / "raw" / "owner/name" / "abc" / "data"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_bytes("\ufeff甲\t1\r\n\r\n乙\t0".encode())
    (folder / "class.txt").write_text("sports\nfinance")
    files = (File("train", ("train.txt",), tabbed("text", "label"), "class.txt"),)
    raw = Raw("x", files, GitHub("owner/name", "abc", "data"))
    rows = list(raw.rows(raw.parts()["train"]))
    assert rows == [{"text": "甲", "label": "finance"}, {"text": "乙", "label": "sports"}]
    assert "abc" in raw.title


@pytest.mark.parametrize("name", tasks.NAMES)
def test_every_task_pins_a_revision(name):
    task = tasks.load(name)
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
        tasks.load(name)(source="hub").prepare_data()
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
        tasks.load("ocnli")(source="hub").prepare_data()


def test_samples_are_written_once_and_by_whoever_comes_first(tmp_path):
    with get_context("fork").Pool(3) as pool:
        homes = pool.starmap(sample_folder, [("bq", tmp_path)] * 3)
    assert set(homes) == {tmp_path / f"samples-{samples.fingerprint()}"}
    assert sorted(path.name for path in homes[0].iterdir()) == ["bq"]  # no scratch folder stays
    before = (homes[0] / "bq" / "train.csv").stat().st_mtime_ns
    sample_folder("bq", tmp_path)
    assert (homes[0] / "bq" / "train.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()])
def test_a_damaged_sample_is_written_again(spoil, tmp_path):
    path = sample_folder("bq", tmp_path) / "bq" / "train.csv"
    before = path.read_bytes()
    spoil(path)
    source.INTACT.clear()  # as in another process
    sample_folder("bq", tmp_path)
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parents[1].iterdir()) == ["bq"]


def test_whoever_comes_second_leaves_the_samples_of_the_first_where_they_are(tmp_path, monkeypatch):
    """The first is done while the second still writes, and reads on."""
    real, places = samples.write, []

    def slow(task, folder):
        if not places:
            monkeypatch.setattr(samples, "write", real)
            places.append(sample_folder("bq", tmp_path) / "bq")
            places.append(places[0].stat().st_ino)
            source.INTACT.clear()  # the second is another process
        real(task, folder)

    monkeypatch.setattr(samples, "write", slow)
    assert sample_folder("bq", tmp_path) / "bq" == places[0]
    assert places[0].stat().st_ino == places[1]


def test_a_damaged_sample_is_mended_while_others_read_it(tmp_path, monkeypatch):
    folder = sample_folder("bq", tmp_path) / "bq"
    (folder / "train.csv").write_text("")
    (folder / "more").write_text("of an earlier version")
    names, real = {path.name for path in folder.iterdir()} - {"more"}, Path.replace

    def replace(path, target):
        assert names <= {one.name for one in folder.iterdir()}
        real(path, target)
        assert names <= {one.name for one in folder.iterdir()}

    monkeypatch.setattr(Path, "replace", replace)
    source.INTACT.clear()
    sample_folder("bq", tmp_path)
    source.INTACT.clear()
    assert source.intact(folder)


def test_a_half_written_sample_is_never_seen(tmp_path, monkeypatch):
    def broken(task, folder):
        (folder / task).mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(samples, "write", broken)
    with pytest.raises(OSError, match="disk full"):
        sample_folder("bq", tmp_path)
    assert list((tmp_path / f"samples-{samples.fingerprint()}").iterdir()) == []


def test_the_cache_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path))
    assert source.cache_folder() == tmp_path
