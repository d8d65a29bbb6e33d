import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.cli import run
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.grid.cells import PlannedCell
from benchmark.results import files, index, locks
from benchmark.results.schema import SCHEMA_VERSION, CellStatus
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError


@pytest.fixture
def place(small: Profile) -> ResultStore:
    return ResultStore(small.results_folder)


def status(place: ResultStore, planned: PlannedCell) -> CellStatus:
    """Status of one cell, from all results of the folder."""
    return place.compute_statuses([planned], place.load_results())[0]


def test_a_result_comes_back_as_it_was_saved(small, fake, place):
    planned = planner.plan_grid(small)[0]
    saved = fake(small, planned, 0.25)
    assert place.load_result(planned) == saved
    assert status(place, planned) == ("done", "")


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "cell.json"
    files.write_file_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.FolderNotWritableError, match="No space"):
        files.write_file_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("torn", [b"", b'{"schema": 2, "ident', b"\xff\xfe", b"[]"])
def test_a_torn_result_counts_as_not_there(torn: bytes, small, fake, place):
    planned = planner.plan_grid(small)[0]
    fake(small, planned, 0.25)
    place.get_result_path(planned).write_bytes(torn)
    assert place.load_result(planned) is None
    assert status(place, planned) == ("planned", "")


def test_a_result_of_another_schema_is_refused(small, fake, place):
    planned = planner.plan_grid(small)[0]
    fake(small, planned, 0.25)
    path = place.get_result_path(planned)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(UsageError, match="schema 99"):
        status(place, planned)


def test_an_older_result_is_stale_says_why_and_stays_on_disk(small, fake, place):
    before = next(cell for cell in planner.plan_grid(small) if cell.cell.method == "lora")
    fake(small, before, 0.25)
    changed = replace(small, config={"lora": {"rank": 3}})
    after = next(cell for cell in planner.plan_grid(changed) if cell.cell == before.cell)
    assert status(place, after) == ("stale", "options.rank 8 -> 3")
    fake(changed, after, 0.5)
    assert status(place, after) == ("done", "")
    assert place.load_result(before).metrics.test["accuracy"] == 0.25


def test_a_result_is_read_again_only_where_its_file_changed(small, fake, place, monkeypatch):
    cells = planner.plan_grid(small)[:3]
    for planned in cells:
        fake(small, planned, 0.25)
    first, opened, right = place.load_results(), [], files.read_result_file
    monkeypatch.setattr(index, "read_result_file", lambda path: opened.append(path.name) or right(path))
    assert place.load_results() == first
    assert opened == []
    fake(small, cells[1], 0.75)
    place.get_result_path(cells[2]).unlink()
    found = {result.key: result.metrics.test["accuracy"] for result in place.load_results()}
    assert opened == [place.get_result_path(cells[1]).name]
    assert found == {cells[0].cell.key: 0.25, cells[1].cell.key: 0.75}


def test_what_is_long_in_a_result_is_there_when_asked_for(small, fake, place):
    saved = fake(small, planner.plan_grid(small)[0], 0.25)
    for _ in range(2):  # without an index and with one
        (result,) = place.load_results()
        assert result.stored_details is None  # not in the index
        assert result.details == saved.details
    result.path.unlink()
    assert result.details == saved.details  # read once
    assert place.load_results() == []


@pytest.mark.parametrize("torn", ["", "[]", '{"version": 0, "results": {}}', '{"version": 2, "resul'])
def test_a_torn_or_old_index_is_made_anew(torn: str, small, fake, place):
    fake(small, planner.plan_grid(small)[0], 0.25)
    before = place.load_results()
    (small.results_folder / "index.json").write_text(torn)
    assert place.load_results() == before


def test_a_failed_cell_says_its_reason(small, fake, place):
    planned = planner.plan_grid(small)[0]
    fake(small, planned, error="RuntimeError: no")
    assert status(place, planned) == ("failed", "RuntimeError: no")


def test_a_needed_cell_is_done_only_with_what_it_learned(small, fake, place):
    planned = replace(planner.plan_grid(small)[0], should_save_adapter=True)
    fake(small, planned, 0.25)
    assert status(place, planned).state == "planned"
    fake(small, planned, 0.25, adapter=place.save_file(place.get_adapter_path(planned.identity), b"tensors"))
    assert status(place, planned).state == "done"
    place.get_adapter_path(planned.identity).unlink()
    assert status(place, planned).state == "planned"


@pytest.mark.parametrize("wrong", ["state", "metrics", "times"])
def test_a_result_that_was_changed_is_torn(wrong: str, small, fake, place):
    planned = planner.plan_grid(small)[0]
    fake(small, planned, 0.25)
    path = place.get_result_path(planned)
    text = {
        "state": ('"state": "done"', '"state": "donE"'),
        "metrics": ("0.25", "0.75"),
        "times": ("finished", "finishes"),
    }[wrong]
    assert text[0] in path.read_text()
    path.write_text(path.read_text().replace(*text))
    assert place.load_result(planned) is None
    assert place.load_results() == []


def test_a_result_without_a_checksum_is_torn(small, fake, place):
    planned = planner.plan_grid(small)[0]
    saved = fake(small, planned, 0.25)
    place.get_result_path(planned).write_text(json.dumps({"schema": SCHEMA_VERSION, **saved.to_json()}))
    assert place.load_result(planned) is None


@pytest.mark.parametrize("spoiled", [b"", b"part", None])
def test_a_cell_is_done_only_with_its_predictions(spoiled: bytes | None, small, fake, place):
    planned = planner.plan_grid(small)[0]
    kept = place.save_predictions(planned, {"uid": ["a"], "score": [1.0]})
    fake(small, planned, 1.0, predictions=kept)
    assert status(place, planned) == ("done", "")
    path = place.get_predictions_path(planned)
    if spoiled is None:
        path.unlink()
    else:
        path.write_bytes(spoiled)
    assert status(place, planned) == ("planned", "")


def test_a_file_of_another_content_is_found_by_a_thorough_look(small, fake, place):
    planned = replace(planner.plan_grid(small)[0], should_save_adapter=True)
    said = place.save_file(place.get_adapter_path(planned.identity), b"tensors")
    fake(small, planned, 1.0, adapter=said)
    assert place.compute_statuses([planned], place.load_results(), verify_files=True) == [("done", "")]
    place.get_adapter_path(planned.identity).write_bytes(b"tensorz")
    assert status(place, planned) == ("done", "")
    assert place.compute_statuses([planned], place.load_results(), verify_files=True) == [
        ("planned", "its files are damaged")
    ]


def test_a_cell_that_is_tried_again_is_over_when_its_result_is_another(small, fake, place):
    planned = planner.plan_grid(small)[0]
    old = fake(small, planned, error="no")
    again = ResultStore(small.results_folder, {planned.identity: old.times.finished})
    assert again.load_finished_result(planned) is None
    assert place.load_finished_result(planned).error  # another process failed at it meanwhile
    time.sleep(0.002)
    fake(small, planned, 0.25)
    assert again.load_finished_result(planned).is_done


def test_a_full_disk_keeps_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.FolderNotWritableError, match="No space left on device; what is finished is kept"):
        files.write_file_atomically(tmp_path / "cell.json", b"new")
    assert not list(tmp_path.iterdir())


def test_what_the_dead_left_half_done_is_swept_away(tmp_path: Path):
    """Files of a folder and of those in it; a take-over whose process is gone, and not one that goes on."""
    (tmp_path / "cells").mkdir()
    (tmp_path / "locks").mkdir()
    mine, dead = (f".x.json.{locks.get_machine_id()}.{process}" for process in (os.getpid(), 2**22 + 1))
    kept = [tmp_path / "cells" / mine, tmp_path / ".x.json.another.1", tmp_path / "locks" / "x.lock.1"]
    gone = [tmp_path / "cells" / dead, tmp_path / dead, tmp_path / "locks" / "x.lock.2"]
    for path in (*kept, *gone):
        path.touch()
    assert locks.acquire_lock(tmp_path / "locks" / "x.lock.3")
    gone[-1].write_text(json.dumps({"process": 2**22 + 1, "machine": locks.get_machine_id()}))
    files.remove_orphaned_files(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*kept, tmp_path / "locks" / "x.lock.3"}


def test_two_runs_may_begin_at_the_same_moment(small, monkeypatch):
    """What looks whether the folder can be written is not in the way of another that looks."""
    real = Path.unlink

    def slow(path: Path, **given: bool) -> None:
        if "probe" in path.name and os.getpid() == first:
            monkeypatch.setattr(os, "getpid", lambda: first + 1)
            run.prepare_results_folder(small)
            monkeypatch.setattr(os, "getpid", lambda: first)
        real(path, **given)

    first = os.getpid()
    monkeypatch.setattr(Path, "unlink", slow)
    run.prepare_results_folder(small)
    assert not list(small.results_folder.glob(".*"))


def test_a_result_that_somebody_removes_meanwhile_is_not_there(small, place, fake, monkeypatch):
    cells = planner.plan_grid(small)[:2]
    for planned in cells:
        fake(small, planned, 0.5)

    class Entry:
        def __init__(self, entry: os.DirEntry) -> None:
            self.name, self.stat = entry.name, entry.stat
            if self.name == f"{cells[0].file_stem}.json":
                os.unlink(entry.path)

    real = os.scandir

    @contextmanager
    def scandir(folder: Path) -> Iterator[list[Entry]]:
        with real(folder) as entries:
            yield [Entry(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", scandir)
    assert [result.identity for result in place.load_results()] == [cells[1].identity]


def test_a_result_with_what_is_no_number_is_refused(small, fake):
    with pytest.raises(files.NonFiniteValueError):
        fake(small, planner.plan_grid(small)[0], float("nan"))


def test_predictions_are_columns_with_a_row_per_example(small, place):
    import pyarrow.parquet

    planned = planner.plan_grid(small)[0]
    said = place.save_predictions(planned, {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]})
    table = pyarrow.parquet.read_table(small.results_folder / said.path)
    assert said.num_rows == 2
    assert table.to_pydict() == {"uid": ["a", "b"], "scores": [[0.5, 0.25], []]}
