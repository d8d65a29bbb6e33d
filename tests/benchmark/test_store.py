import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark import grid, store
from benchmark.profile import Profile
from benchmark.store import Store
from tasks.example import UsageError


@pytest.fixture
def place(small: Profile) -> Store:
    return Store(small.folder)


def test_a_result_comes_back_as_it_was_saved(small, fake, place):
    planned = grid.plan(small)[0]
    saved = fake(small, planned, 0.25)
    assert place.read(planned) == {"schema": store.SCHEMA, **saved}
    assert place.state(planned) == ("done", "")


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "cell.json"
    store.write(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write(path, b"new and longer")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("torn", [b"", b'{"schema": 1, "ident', b"\xff\xfe", b"[]"])
def test_a_torn_result_counts_as_not_there(torn: bytes, small, fake, place):
    planned = grid.plan(small)[0]
    fake(small, planned, 0.25)
    place.path(planned).write_bytes(torn)
    assert place.read(planned) is None
    assert place.state(planned) == ("planned", "")


def test_a_result_of_another_schema_is_refused(small, fake, place):
    planned = grid.plan(small)[0]
    fake(small, planned, 0.25)
    path = place.path(planned)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(UsageError, match="schema 99"):
        place.state(planned)


def test_an_older_result_is_stale_says_why_and_stays_on_disk(small, fake, place):
    before = next(cell for cell in grid.plan(small) if cell.cell.method == "lora")
    fake(small, before, 0.25)
    changed = replace(small, config={"lora": {"rank": 3}})
    after = next(cell for cell in grid.plan(changed) if cell.cell == before.cell)
    assert place.state(after) == ("stale", "options.rank 8 -> 3")
    fake(changed, after, 0.5)
    assert place.state(after) == ("done", "")
    assert place.read(before)["metrics"]["test"]["accuracy"] == 0.25


def test_a_failed_cell_says_its_reason(small, fake, place):
    planned = grid.plan(small)[0]
    fake(small, planned, None, state="failed", error={"reason": "RuntimeError: no", "traceback": ""})
    assert place.state(planned) == ("failed", "RuntimeError: no")
    assert not place.done(planned)


def test_a_needed_cell_is_done_only_with_what_it_learned(small, fake, place):
    planned = replace(grid.plan(small)[0], needed=True)
    fake(small, planned, 0.25)
    assert not place.done(planned)
    store.write(place.artefact(planned.identity), b"tensors")
    assert place.done(planned)


def test_of_many_takers_one_gets_the_lock(small, place):
    planned = grid.plan(small)[0]
    place.lock_path(planned).parent.mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: store.take(place.lock_path(planned)), range(32)))
    assert sum(got) == 1
    assert place.state(planned) == ("running", "")


def test_a_lock_is_gone_after_its_cell(small, place):
    planned = grid.plan(small)[0]
    with place.lock(planned) as mine:
        assert mine
        with place.lock(planned) as other:
            assert not other
        assert place.running(planned)
    assert not place.running(planned)


@pytest.mark.parametrize(
    ("owner", "age", "free"),
    [
        ({"process": 2**22 + 1, "machine": store.machine()}, 0, True),  # its process is gone
        ({"process": os.getpid(), "machine": store.machine()}, 0, False),
        ({"process": 1, "machine": "another"}, 10, False),
        ({"process": 1, "machine": "another"}, 1000, True),  # no heartbeat for long
    ],
)
def test_a_lock_is_taken_over_only_from_the_dead(owner: dict, age: int, free: bool, tmp_path: Path):
    path = tmp_path / "cell.lock"
    path.write_text(json.dumps(owner))
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))
    assert store.held(path) is not free
    assert store.take(path) is free


def test_predictions_are_columns_with_a_row_per_example(small, place):
    import pyarrow.parquet

    planned = grid.plan(small)[0]
    said = place.save_predictions(planned, {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]})
    table = pyarrow.parquet.read_table(small.folder / said["file"])
    assert said["rows"] == 2
    assert table.to_pydict() == {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]}
