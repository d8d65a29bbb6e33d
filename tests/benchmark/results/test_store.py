import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark import grid, locks, running, store
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
    with pytest.raises(store.Unwritable, match="No space"):
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


@pytest.mark.parametrize("wrong", ["state", "metrics", "times"])
def test_a_result_that_was_changed_is_torn(wrong: str, small, fake, place):
    planned = grid.plan(small)[0]
    fake(small, planned, 0.25)
    path = place.path(planned)
    text = {"state": ("done", "donE"), "metrics": ("0.25", "0.75"), "times": ("finished", "finishes")}[wrong]
    assert text[0] in path.read_text()
    path.write_text(path.read_text().replace(*text))
    assert place.read(planned) is None
    assert place.results() == []


def test_a_result_of_before_seals_is_read(small, fake, place):
    planned = grid.plan(small)[0]
    saved = fake(small, planned, 0.25)
    place.path(planned).write_text(json.dumps({"schema": store.SCHEMA, **saved}))
    assert place.state(planned) == ("done", "")


@pytest.mark.parametrize("spoiled", [b"", b"part", None])
def test_a_cell_is_done_only_with_its_predictions(spoiled: bytes | None, small, fake, place):
    planned = grid.plan(small)[0]
    kept = place.save_predictions(planned, {"uid": ["a"], "score": [1.0]})
    fake(small, planned, 1.0, predictions=kept)
    assert place.done(planned)
    path = place.predictions(planned)
    if spoiled is None:
        path.unlink()
    else:
        path.write_bytes(spoiled)
    assert not place.done(planned)
    assert place.state(planned) == ("planned", "")


def test_a_file_of_another_content_is_found_by_a_thorough_look(small, fake, place):
    planned = replace(grid.plan(small)[0], needed=True)
    said = place.keep(place.artefact(planned.identity), b"tensors")
    fake(small, planned, 1.0, artefact=said)
    assert place.states([planned], place.results(), thorough=True) == [("done", "")]
    place.artefact(planned.identity).write_bytes(b"tensorz")
    assert place.state(planned) == ("done", "")
    assert place.states([planned], place.results(), thorough=True) == [("planned", "its files are damaged")]


def test_a_cell_that_is_tried_again_is_over_when_its_result_is_another(small, fake, place):
    planned = grid.plan(small)[0]
    old = fake(small, planned, None, state="failed", error={"reason": "no", "traceback": ""})
    again = Store(small.folder, {planned.identity: old["times"]["finished"]})
    assert again.over(planned) is None
    assert place.over(planned)["state"] == "failed"  # another process failed at it meanwhile
    time.sleep(0.002)
    fake(small, planned, 0.25)
    assert again.over(planned)["state"] == "done"


def test_a_full_disk_keeps_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(store.Unwritable, match="No space left on device; what is finished is kept"):
        store.write(tmp_path / "cell.json", b"new")
    assert not list(tmp_path.iterdir())


def test_what_the_dead_left_half_done_is_swept_away(tmp_path: Path):
    """Files of a folder and of those in it; a take-over whose process is gone, and not one that goes on."""
    (tmp_path / "cells").mkdir()
    (tmp_path / "locks").mkdir()
    mine, dead = (f".x.json.{locks.machine()}.{process}" for process in (os.getpid(), 2**22 + 1))
    kept = [tmp_path / "cells" / mine, tmp_path / ".x.json.another.1", tmp_path / "locks" / "x.lock.1"]
    gone = [tmp_path / "cells" / dead, tmp_path / dead, tmp_path / "locks" / "x.lock.2"]
    for path in (*kept, *gone):
        path.touch()
    assert locks.take(tmp_path / "locks" / "x.lock.3")
    gone[-1].write_text(json.dumps({"process": 2**22 + 1, "machine": locks.machine()}))
    locks.sweep(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*kept, tmp_path / "locks" / "x.lock.3"}


def test_two_runs_may_begin_at_the_same_moment(small, monkeypatch):
    """What looks whether the folder can be written is not in the way of another that looks."""
    real = Path.unlink

    def slow(path: Path, **given: bool) -> None:
        if "probe" in path.name and os.getpid() == first:
            monkeypatch.setattr(os, "getpid", lambda: first + 1)
            running.prepare(small)
            monkeypatch.setattr(os, "getpid", lambda: first)
        real(path, **given)

    first = os.getpid()
    monkeypatch.setattr(Path, "unlink", slow)
    running.prepare(small)
    assert not list(small.folder.glob(".*"))


def test_a_result_that_somebody_removes_meanwhile_is_not_there(small, place, fake, monkeypatch):
    cells = grid.plan(small)[:2]
    for planned in cells:
        fake(small, planned, 0.5)

    class Entry:
        def __init__(self, entry: os.DirEntry) -> None:
            self.name, self.stat = entry.name, entry.stat
            if self.name == f"{cells[0].name}.json":
                os.unlink(entry.path)

    real = os.scandir

    @contextmanager
    def scandir(folder: Path) -> Iterator[list[Entry]]:
        with real(folder) as entries:
            yield [Entry(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", scandir)
    assert [result["identity"] for result in place.results()] == [cells[1].identity]


def test_a_result_with_what_is_no_number_is_refused(small, fake):
    with pytest.raises(store.NotANumber):
        fake(small, grid.plan(small)[0], float("nan"))


def test_predictions_are_columns_with_a_row_per_example(small, place):
    import pyarrow.parquet

    planned = grid.plan(small)[0]
    said = place.save_predictions(planned, {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]})
    table = pyarrow.parquet.read_table(small.folder / said["file"])
    assert said["rows"] == 2
    assert table.to_pydict() == {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]}
