"""Grids that Ray fills. All but one test have actors without a backbone, which are there in a moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmark import cluster, grid, locks, ray_engine, report, running
from benchmark.__main__ import entry
from benchmark.environment import now
from benchmark.limits import Limits
from benchmark.profile import Profile
from benchmark.result import header
from benchmark.shop import Shop
from benchmark.store import Store
from tasks.example import UsageError
from tests.fault_injection.harness import numbers, tables


class Light(ray_engine.Hand):
    """Writes results without computing them; what the file of a cell says in the folder `faults`, it does first."""

    def load(self) -> ray_engine.Home | UsageError:
        if (self.profile.folder / "faults" / "load").exists():
            return UsageError("no such backbone")
        self.bench = Bench(self.profile, Store(self.profile.folder, self.tried))
        return ray_engine.Home.here()


class Bench:
    def __init__(self, profile: Profile, store: Store) -> None:
        self.profile, self.store = profile, store

    def run(self, pack: list[grid.Planned]) -> list[dict]:
        for planned in pack:
            self.fault(self.profile.folder / "faults" / planned.cell.key.replace("/", "-"))
        return [self.result(planned) for planned in pack]

    def fault(self, path: Path) -> None:
        if not path.exists():
            return
        what, times = path.read_text().split()
        path.write_text(f"{what} {int(times) - 1}") if int(times) > 1 else path.unlink()
        os.kill(os.getpid(), signal.SIGKILL) if what == "die" else time.sleep(60)

    def result(self, planned: grid.Planned) -> dict:
        found = header(planned, self.profile, now(), 0.0) | {"state": "done", "metrics": {"test": {}, "dev": {}}}
        self.store.save(planned, found)
        with (self.profile.folder / "done").open("a") as file:
            file.write(f"{planned.cell.key}\n")
        return found


class Seen:
    """A progress that remembers."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.failed, self.then, self.lines = 0, then, []

    def start(self, pack) -> None: ...

    def put_back(self, planned) -> None: ...

    def again(self, pack, reason) -> None: ...

    def line(self, text, style) -> None:
        self.lines.append(text)

    def finish(self, planned, result) -> None:
        self.failed += result["state"] == "failed"
        self.then()


@pytest.fixture(scope="module")
def two() -> Iterator[None]:
    """Ray on this machine, with two places."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install ray")
    before = signal.getsignal(signal.SIGTERM)
    cluster.start(2)
    ray = cluster.library()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def filled(small: Profile, two: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shop]:
    """What became of a grid of the first cells of `lora`, each alone or in packs, with faults of some."""
    monkeypatch.setattr(ray_engine, "Hand", Light)
    running.prepare(small)

    def fill(cells: int, pack: int = 1, workers: int = 1, seen: Seen | None = None, faults=(), **given) -> Shop:
        place = Store(small.folder)
        planned = [cell for cell in grid.plan(small) if cell.cell.method == "lora"][:cells]
        due = [cell for cell in planned if not place.done(cell)]
        for name, what in dict(faults).items():
            (small.folder / "faults").mkdir(exist_ok=True)
            (small.folder / "faults" / name).write_text(what)
        packs = [tuple(due[first : first + pack]) for first in range(0, len(due), pack)]
        return ray_engine.fill(small, packs, place, seen or Seen(), workers, Limits(**given))

    return fill


def done(small: Profile) -> list[str]:
    return (small.folder / "done").read_text().split()


def failed(small: Profile) -> dict[str, str]:
    return {r["key"]: r["error"]["reason"] for r in Store(small.folder).results() if r["state"] == "failed"}


def clean(small: Profile) -> bool:
    """No lock and no probe is left."""
    return not list((small.folder / "locks").iterdir()) and not list((small.folder / "cells").glob(".*"))


def test_a_killed_actor_costs_its_pack_only(small: Profile, filled, monkeypatch):
    """First a pack of two, whose cells come up alone; then the one of them that kills whoever takes it."""
    monkeypatch.setattr(ray_engine, "TRIES", 2)
    assert filled(4, pack=2, workers=2, faults={"lora-afqmc-4-0": "die 9"}).left == 0
    assert (small.folder / "faults" / "lora-afqmc-4-0").read_text() == "die 6"
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
def actors(small: Profile, monkeypatch: pytest.MonkeyPatch) -> ray_engine.Actors:
    """Of a Ray that only says yes."""
    monkeypatch.setattr(ray_engine, "library", Mock)
    monkeypatch.setattr(ray_engine, "devices", lambda profile: 0)
    crew = ray_engine.Actors(Shop([], small, Store(small.folder), Seen()), 1, ())
    crew.ray.cluster_resources.return_value = {"CPU": 2.0}
    return crew


def test_an_actor_whose_node_is_gone_is_killed_before_another_has_its_pack(actors: ray_engine.Actors, monkeypatch):
    monkeypatch.setattr(ray_engine, "GONE", 0.0)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    home = ray_engine.Home.here()._replace(process=process.pid, born=locks.born(process.pid))
    actors.end([ray_engine.Worker(None, 0.0, home=home._replace(born="1"))])
    assert process.poll() is None  # another process with the number of one that is gone
    actors.end([ray_engine.Worker(None, 0.0, home=home)])
    assert process.wait() == -signal.SIGKILL


def test_that_nobody_works_is_said_and_that_actors_have_a_low_priority(actors: ray_engine.Actors, monkeypatch):
    lines, begun = actors.shop.progress.lines, actors.told
    actors.busy[0] = ray_engine.Worker(None, begun)
    for after, pack in ((59, None), (60, None), (61, None), (119, (1,)), (130, None)):
        monkeypatch.setattr(ray_engine, "monotonic", lambda after=after: begun + after)
        actors.busy[0].pack = pack
        actors.tell()
    assert lines == ["no actor has loaded for 60 s: Ray has 2 CPUs and 0 GPUs, and others may use them"]
    for niceness in (0, 15, 15):
        actors.warn(ray_engine.Home.here()._replace(niceness=os.getpriority(os.PRIO_PROCESS, 0) + niceness))
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
    monkeypatch.setattr(report, "make", numbers)
    words = ["run", "--profile", "smoke", "--backbone", small.backbone.name, "--methods", "zero_shot,lora,shared_lora",
             "--tasks", "chnsent,lcqmc", "--seeds", "0", "--set", "sources=[afqmc, bq]", "--workers", "1"]  # fmt: skip
    for name in ("processes", "ray"):
        assert entry([*words, "--engine", name, "--results", str(tmp_path / name)]) == 0
    assert tables(tmp_path / "ray") == tables(tmp_path / "processes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "rai"], "invalid choice: 'rai'"),
        (["--address", "here:1"], "add --engine ray"),
        (["--engine", "ray", "--address", "here"], "write host:port"),
        (["--engine", "ray", "--address", "ray://here:10001"], "write host:port"),
        (["--engine", "ray", "--address", "127.0.0.1:9"], "nobody answers there"),
    ],
)
def test_who_cannot_be_asked_to_do_the_work(words: list[str], said: str, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "find_spec", lambda name: True)
    assert entry(["run", "--profile", "smoke", *words]) == 2
    assert said in capsys.readouterr().err


def test_ray_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert entry(["run", "--profile", "smoke", "--engine", "ray"]) == 2
    assert "pip install ray" in capsys.readouterr().err
