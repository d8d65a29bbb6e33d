"""Grids that Ray fills. All but one test have actors without a backbone, which are there in a moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmark.cli import run
from benchmark.cli.main import main
from benchmark.config.profile import Profile
from benchmark.config.run_limits import RunLimits
from benchmark.execution import ray_cluster, ray_pool
from benchmark.execution.messages import WorkerFailed
from benchmark.execution.record import build_result
from benchmark.execution.scheduler import Scheduler
from benchmark.grid import cells, planner
from benchmark.reporting import build
from benchmark.results import locks
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import Metrics
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError
from tests.fault_injection.harness import build_tables, numbers


class Light(ray_pool.RayWorker):
    """Writes results without computing them; what the file of a cell says in the folder `faults`, it does first."""

    def load(self) -> ray_pool.ProcessInfo | WorkerFailed:
        if (self.profile.results_folder / "faults" / "load").exists():
            return WorkerFailed(UsageError("no such backbone"))
        self.cell_runner = Bench(self.profile, ResultStore(self.profile.results_folder, self.previous_attempts))
        return ray_pool.ProcessInfo.current()


class Bench:
    def __init__(self, profile: Profile, store: ResultStore) -> None:
        self.profile, self.store = profile, store

    def run(self, pack: list[cells.PlannedCell]) -> list[CellResult]:
        for planned in pack:
            self.fault(self.profile.results_folder / "faults" / planned.cell.key.replace("/", "-"))
        return [self.result(planned) for planned in pack]

    def fault(self, path: Path) -> None:
        if not path.exists():
            return
        what, times = path.read_text().split()
        path.write_text(f"{what} {int(times) - 1}") if int(times) > 1 else path.unlink()
        os.kill(os.getpid(), signal.SIGKILL) if what == "die" else time.sleep(60)

    def result(self, planned: cells.PlannedCell) -> CellResult:
        found = replace(build_result(planned, self.profile), metrics=Metrics({}, {}, {}))
        self.store.save_result(planned, found)
        with (self.profile.results_folder / "done").open("a") as file:
            file.write(f"{planned.cell.key}\n")
        return found


class Seen:
    """A progress that remembers."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.num_failed, self.then, self.lines = 0, then, []

    def start_pack(self, pack) -> None: ...

    def release_cell(self, planned) -> None: ...

    def report_requeue(self, pack, reason) -> None: ...

    def print_line(self, text, style) -> None:
        self.lines.append(text)

    def finish_cell(self, planned, result) -> None:
        self.num_failed += not result.is_done
        self.then()


@pytest.fixture(scope="module")
def two() -> Iterator[None]:
    """Ray on this machine, with two places."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install ray")
    before = signal.getsignal(signal.SIGTERM)
    ray_cluster.start_local_ray(2)
    ray = ray_cluster.import_ray()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def filled(small: Profile, two: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scheduler]:
    """What became of a grid of the first cells of `lora`, each alone or in packs, with faults of some."""
    monkeypatch.setattr(ray_pool, "RayWorker", Light)
    run.prepare_results_folder(small)

    def fill(cells: int, pack: int = 1, workers: int = 1, seen: Seen | None = None, faults=(), **given) -> Scheduler:
        place = ResultStore(small.results_folder)
        planned = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"][:cells]
        due = [cell for cell in planned if not place.is_done(cell)]
        for name, what in dict(faults).items():
            (small.results_folder / "faults").mkdir(exist_ok=True)
            (small.results_folder / "faults" / name).write_text(what)
        packs = [tuple(due[first : first + pack]) for first in range(0, len(due), pack)]
        return ray_pool.run_packs(small, packs, place, seen or Seen(), workers, RunLimits(**given))

    return fill


def done(small: Profile) -> list[str]:
    return (small.results_folder / "done").read_text().split()


def failed(small: Profile) -> dict[str, str]:
    return {r.key: r.error.reason for r in ResultStore(small.results_folder).load_results() if not r.is_done}


def clean(small: Profile) -> bool:
    """No lock and no probe is left."""
    return not list((small.results_folder / "locks").iterdir()) and not list(
        (small.results_folder / "cells").glob(".*")
    )


def test_a_killed_actor_costs_its_pack_only(small: Profile, filled, monkeypatch):
    """First a pack of two, whose cells come up alone; then the one of them that kills whoever takes it."""
    monkeypatch.setattr(ray_pool, "MAX_WORKER_DEATHS", 2)
    assert filled(4, pack=2, workers=2, faults={"lora-afqmc-4-0": "die 9"}).left == 0
    assert (small.results_folder / "faults" / "lora-afqmc-4-0").read_text() == "die 6"
    assert list(failed(small)) == ["lora/afqmc/4/0"]
    assert failed(small)["lora/afqmc/4/0"].startswith("the worker died")
    assert failed(small)["lora/afqmc/4/0"].endswith("2 times")
    assert len(done(small)) == len(set(done(small))) == 3
    assert clean(small)


def test_a_cell_that_takes_too_long_has_failed(small: Profile, filled):
    assert filled(1, faults={"lora-afqmc-4-0": "sleep 1"}, timeout=2.0).left == 0
    assert failed(small) == {"lora/afqmc/4/0": "took longer than its 2 s (--timeout)"}
    assert clean(small)


def test_an_interruption_keeps_what_is_done_and_leaves_no_lock(small: Profile, filled):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled(3, seen=Seen(interrupt))
    assert 1 <= len(done(small)) < 3
    assert clean(small)
    assert filled(3).left == 0
    assert len(done(small)) == len(set(done(small))) == 3


@pytest.fixture
def actors(small: Profile, monkeypatch: pytest.MonkeyPatch) -> ray_pool.RayPool:
    """Of a Ray that only says yes."""
    monkeypatch.setattr(ray_pool, "import_ray", Mock)
    monkeypatch.setattr(ray_pool, "count_cluster_gpus", lambda profile: 0)
    crew = ray_pool.RayPool(Scheduler([], small, ResultStore(small.results_folder), Seen()), 1, ())
    crew.ray.cluster_resources.return_value = {"CPU": 2.0}
    return crew


def test_an_actor_whose_node_is_gone_is_killed_before_another_has_its_pack(actors: ray_pool.RayPool, monkeypatch):
    monkeypatch.setattr(ray_pool, "KILL_TIMEOUT_SECONDS", 0.0)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    home = ray_pool.ProcessInfo.current()._replace(
        pid=process.pid, created_at=locks.get_process_start_time(process.pid)
    )
    actors.kill_workers([ray_pool.RayWorkerState(None, 0.0, process_info=home._replace(created_at="1"))])
    assert process.poll() is None  # another process with the number of one that is gone
    actors.kill_workers([ray_pool.RayWorkerState(None, 0.0, process_info=home)])
    assert process.wait() == -signal.SIGKILL


def test_that_nobody_works_is_said_and_that_actors_have_a_low_priority(actors: ray_pool.RayPool, monkeypatch):
    lines, begun = actors.scheduler.progress.lines, actors.last_activity_time
    actors.busy_workers[0] = ray_pool.RayWorkerState(None, begun)
    for after, pack in ((59, None), (60, None), (61, None), (119, (1,)), (130, None)):
        monkeypatch.setattr(ray_pool, "monotonic", lambda after=after: begun + after)
        actors.busy_workers[0].pack = pack
        actors.warn_if_inactive()
    assert lines == ["no actor has loaded for 60 s: Ray has 2 CPUs and 0 GPUs, which other jobs may be using"]
    for niceness in (0, 15, 15):
        actors.warn_if_low_priority(
            ray_pool.ProcessInfo.current()._replace(niceness=os.getpriority(os.PRIO_PROCESS, 0) + niceness)
        )
    assert len(lines) == 2
    assert "RAY_worker_niceness=0" in lines[1]


def test_what_an_actor_cannot_load_is_said_once(small: Profile, filled):
    with pytest.raises(UsageError, match="no such backbone"):
        filled(1, faults={"load": ""})


def test_no_pack_begins_after_the_budget(small: Profile, filled):
    shop = filled(2, budget=0.001)
    assert shop.left == 2
    assert "budget" in shop.ended


def test_a_pack_costs_little(small: Profile, filled):
    """Of the process that hands out: CPU time, which other processes do not change."""
    began = []
    filled(60, seen=Seen(lambda: began.append(time.process_time())))
    assert len(began) == 18  # all there are
    assert (began[-1] - began[0]) / 17 < 0.05


def test_a_grid_has_the_tables_of_the_other_engine(small: Profile, two, tmp_path, monkeypatch):
    """A backbone, two stages and packs, from the command line."""
    monkeypatch.setattr(build, "build_report", numbers)
    words = ["run", "--profile", "smoke", "--backbone", small.backbone.name, "--methods", "zero_shot,lora,shared_lora",
             "--tasks", "chnsent,lcqmc", "--seeds", "0", "--set", "sources=[afqmc, bq]", "--workers", "1"]  # fmt: skip
    for name in ("processes", "ray"):
        assert main([*words, "--engine", name, "--results", str(tmp_path / name)]) == 0
    assert build_tables(tmp_path / "ray") == build_tables(tmp_path / "processes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "rai"], "invalid choice: 'rai'"),
        (["--address", "here:1"], "add --engine ray"),
        (["--engine", "ray", "--address", "here"], "write host:port"),
        (["--engine", "ray", "--address", "ray://here:10001"], "write host:port"),
        (["--engine", "ray", "--address", "127.0.0.1:9"], "no server answers there"),
    ],
)
def test_who_cannot_be_asked_to_do_the_work(words: list[str], said: str, monkeypatch, capsys):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: True)
    assert main(["run", "--profile", "smoke", *words]) == 2
    assert said in capsys.readouterr().err


def test_ray_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    assert main(["run", "--profile", "smoke", "--engine", "ray"]) == 2
    assert "pip install ray" in capsys.readouterr().err
