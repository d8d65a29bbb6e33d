"""Whose cell it is, whatever the clock says and whoever died."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmark.grid import planner
from benchmark.results import locks
from benchmark.results.store import ResultStore

SELF = {"process": os.getpid(), "machine": locks.get_machine_id(), "born": locks.get_process_start_time(os.getpid())}


@pytest.fixture
def place(small) -> ResultStore:
    return ResultStore(small.results_folder)


def written(path: Path, owner: dict, age: float) -> Path:
    path.write_text(json.dumps(owner))
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))
    return path


def test_of_many_takers_one_gets_the_lock(small, place):
    planned = planner.plan_grid(small)[0]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: locks.acquire_lock(place.get_lock_path(planned)), range(32)))
    assert sum(got) == 1
    state, why = place.compute_statuses([planned], place.load_results())[0]
    assert (state, why[:4]) == ("running", "for ")


def test_of_many_takers_one_gets_the_lock_of_a_dead_one(tmp_path: Path):
    path = written(tmp_path / "cell.lock", {"process": 2**22 + 1, "machine": locks.get_machine_id()}, 0)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: locks.acquire_lock(path), range(32)))
    assert sum(got) == 1


DEAD = {"process": 2**22 + 1, "machine": locks.get_machine_id()}


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, what: Callable[[], object]) -> None:
    """The first time that a function of `locks` has answered, something else happens before its caller goes on."""
    real, once = getattr(locks, name), [what]

    def slow(*given):
        found = real(*given)
        if once:
            once.pop()()
        return found

    monkeypatch.setattr(locks, name, slow)


def test_one_who_saw_a_dead_lock_long_ago_leaves_that_of_whoever_took_it_over(tmp_path: Path, monkeypatch):
    path = written(tmp_path / "cell.lock", DEAD, 0)
    meanwhile(monkeypatch, "is_lock_held", lambda: locks.acquire_lock(path, "faster"))
    assert not locks.acquire_lock(path, "slower")
    assert locks.read_lock_owner(path)["token"] == "faster"


def test_one_who_saw_a_dead_lock_leaves_that_of_whoever_came_after_it_was_given_back(tmp_path: Path, monkeypatch):
    path = written(tmp_path / "cell.lock", DEAD, 0)
    meanwhile(monkeypatch, "is_lock_held", lambda: path.unlink() or locks.acquire_lock(path, "next"))
    assert not locks.acquire_lock(path, "slower")
    assert locks.read_lock_owner(path)["token"] == "next"


def test_an_empty_lock_of_long_ago_is_not_taken_for_one_that_is_just_being_written(tmp_path: Path, monkeypatch):
    path = tmp_path / "cell.lock"
    path.touch()
    os.utime(path, (0, 0))
    meanwhile(monkeypatch, "is_lock_held", lambda: path.unlink() or path.touch())
    assert not locks.acquire_lock(path, "slower")
    assert path.exists()


def test_giving_back_for_the_dead_leaves_the_lock_of_whoever_took_it_over(tmp_path: Path, monkeypatch):
    path = written(tmp_path / "cell.lock", DEAD, 0)
    meanwhile(monkeypatch, "read_lock_bytes", lambda: locks.acquire_lock(path, "another"))
    locks.release_lock(path, process=DEAD["process"])
    assert locks.read_lock_owner(path)["token"] == "another"


def test_a_lock_is_given_back_on_a_full_disk(tmp_path: Path, monkeypatch):
    path = tmp_path / "cell.lock"
    assert locks.acquire_lock(path, "mine")

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(locks, "create_lock_file", full)
    locks.release_lock(path, token="mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("owner", "free"), [(DEAD, True), (SELF, False)])
def test_one_who_died_while_taking_over_is_followed(owner: dict, free: bool, tmp_path: Path):
    path = written(tmp_path / "cell.lock", DEAD, 0)
    with locks.claim_removal(path, path.read_bytes()) as mine:
        (permit,) = tmp_path.glob("cell.lock.*")
        assert mine
    written(permit, owner, 0)
    assert locks.acquire_lock(path) is free
    assert permit.exists() is not free


def test_a_lock_is_gone_after_its_cell(small, place):
    planned = planner.plan_grid(small)[0]
    with place.lock_cells([planned]) as mine:
        assert mine == [planned]
        with place.lock_cells([planned]) as other:
            assert other == []
        assert place.is_running(planned)
    assert not place.is_running(planned)


@pytest.mark.parametrize(
    ("owner", "age", "free"),
    [
        ({"process": 2**22 + 1, "machine": locks.get_machine_id()}, 0, True),  # its process is gone
        (SELF, 0, False),
        (SELF, 10_000, False),  # stopped for long, or the clock was set forward: it lives
        (SELF | {"born": "1"}, 0, True),  # another process has its number
        ({"process": 1, "machine": "another"}, 10, False),
        ({"process": 1, "machine": "another"}, 1000, True),  # no heartbeat for long
        ({"process": 1, "machine": "another"}, -1000, False),  # the clock was set back
        ({}, 0, False),  # just being written
        ({}, 1000, True),
        ([], 1000, True),
    ],
)
def test_a_lock_is_taken_over_only_from_the_dead(owner: dict, age: int, free: bool, tmp_path: Path):
    path = written(tmp_path / "cell.lock", owner, age)
    assert locks.is_lock_held(path) is not free
    assert locks.acquire_lock(path) is free


def test_after_the_clock_was_set_back_a_dead_lock_is_known_by_its_silence(tmp_path: Path, monkeypatch):
    path = written(tmp_path / "cell.lock", {"process": 1, "machine": "another"}, -1000)
    now = time.monotonic()
    assert locks.is_lock_held(path)
    monkeypatch.setattr(locks, "monotonic", lambda: now + 2 * locks.STALE_AFTER_SECONDS)
    assert not locks.is_lock_held(path)


def test_a_heartbeat_after_the_clock_was_set_back_keeps_a_lock(tmp_path: Path, monkeypatch):
    path = written(tmp_path / "cell.lock", {"process": 1, "machine": "another"}, -1000)
    now = time.monotonic()
    assert locks.is_lock_held(path)
    monkeypatch.setattr(locks, "monotonic", lambda: now + 2 * locks.STALE_AFTER_SECONDS)
    os.utime(path)
    assert locks.is_lock_held(path)


def test_a_process_that_was_killed_and_not_asked_after_is_dead():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert locks.is_process_alive(process.pid, locks.get_process_start_time(process.pid))
    process.send_signal(signal.SIGKILL)
    while locks.get_process_start_time(process.pid) != "gone":  # a zombie, until `wait`
        time.sleep(0.01)
    assert not locks.is_process_alive(process.pid)
    process.wait()
    assert not locks.is_process_alive(process.pid)


class Beats:
    """Says for so many beats that it is not over."""

    def __init__(self, beats: int) -> None:
        self.left = beats

    def wait(self, seconds: float) -> bool:
        self.left -= 1
        return self.left < 0


def test_the_locks_of_a_pack_are_kept_alive_and_given_back(small, place, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_INTERVAL_SECONDS", 0.001)
    cells = planner.plan_grid(small)[:2]
    with place.lock_cells(cells):
        for planned in cells:
            os.utime(place.get_lock_path(planned), (0, 0))
        while any(place.get_lock_path(planned).stat().st_mtime == 0 for planned in cells):
            time.sleep(0.001)
    assert not list((small.results_folder / "locks").iterdir())


def test_a_lock_that_another_took_over_is_theirs(small, place):
    planned = planner.plan_grid(small)[0]
    path = place.get_lock_path(planned)
    with place.lock_cells([planned]):
        token = locks.read_lock_owner(path)["token"]
        written(path, {"process": 1, "machine": "another", "token": "theirs"}, 1000)
        before = path.stat().st_mtime
        locks._run_heartbeat([path], token, Beats(2))
        assert path.stat().st_mtime == before
    assert path.exists()


def test_a_heart_beats_on_where_the_folder_was_out_of_reach_for_a_moment(tmp_path: Path, monkeypatch):
    path = written(tmp_path / "cell.lock", SELF | {"token": "mine"}, 1000)
    real, refused = locks.read_lock_bytes, [OSError(116, "Stale file handle")]

    def content(path: Path) -> bytes | None:
        if refused:
            raise refused.pop()
        return real(path)

    monkeypatch.setattr(locks, "read_lock_bytes", content)
    before = path.stat().st_mtime
    locks._run_heartbeat([path], "mine", Beats(2))
    assert path.stat().st_mtime > before + 900


def test_a_folder_that_takes_no_lock_is_no_fault_of_a_cell(small, place):
    from benchmark.results.files import FolderNotWritableError

    place.folder.mkdir(parents=True)
    (place.folder / "locks").write_text("")
    with pytest.raises(FolderNotWritableError, match="results folder"), place.lock_cells(planner.plan_grid(small)[:1]):
        pass
