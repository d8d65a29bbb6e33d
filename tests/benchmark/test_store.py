import json
import os
import time
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


def test_a_result_is_read_again_only_where_its_file_changed(small, fake, place, monkeypatch):
    cells = grid.plan(small)[:3]
    for planned in cells:
        fake(small, planned, 0.25)
    first, opened, right = place.results(), [], store.load
    monkeypatch.setattr(store, "load", lambda path: opened.append(path.name) or right(path))
    assert place.results() == first
    assert opened == []
    fake(small, cells[1], 0.75)
    place.path(cells[2]).unlink()
    found = {result["key"]: result["metrics"]["test"]["accuracy"] for result in place.results()}
    assert opened == [place.path(cells[1]).name]
    assert found == {cells[0].cell.key: 0.25, cells[1].cell.key: 0.75}


def test_what_is_long_in_a_result_is_there_when_asked_for(small, fake, place):
    saved = fake(small, grid.plan(small)[0], 0.25)
    for _ in range(2):  # without an index and with one
        (result,) = place.results()
        assert "parts" not in result
        assert result["training"] == saved["training"]
        assert result["parts"] == saved["parts"]
        with pytest.raises(KeyError):
            result["nothing"]


@pytest.mark.parametrize("torn", ["", "[]", '{"version": 0, "results": {}}', '{"version": 1, "resul'])
def test_a_torn_or_old_index_is_made_anew(torn: str, small, fake, place):
    fake(small, grid.plan(small)[0], 0.25)
    before = place.results()
    (small.folder / "index.json").write_text(torn)
    assert place.results() == before


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
    with place.lock([planned]) as mine:
        assert mine == [planned]
        with place.lock([planned]) as other:
            assert other == []
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


def test_the_locks_of_a_pack_are_kept_alive_and_given_back(small, place, monkeypatch):
    monkeypatch.setattr(store, "BEAT", 0.02)
    cells = grid.plan(small)[:2]
    with place.lock(cells):
        for planned in cells:
            os.utime(place.lock_path(planned), (0, 0))
        time.sleep(0.3)
        assert all(place.lock_path(planned).stat().st_mtime > 0 for planned in cells)
    assert not list((small.folder / "locks").iterdir())


def test_predictions_are_columns_with_a_row_per_example(small, place):
    import pyarrow.parquet

    planned = grid.plan(small)[0]
    said = place.save_predictions(planned, {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]})
    table = pyarrow.parquet.read_table(small.folder / said["file"])
    assert said["rows"] == 2
    assert table.to_pydict() == {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]}
