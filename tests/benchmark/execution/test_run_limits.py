"""How a run ends before all is done, and how it goes on."""

import argparse
import signal
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import pytest

from benchmark.cli.main import main
from benchmark.config import run_limits
from benchmark.config.profile import Profile
from benchmark.config.run_limits import RunLimits
from benchmark.execution import process_pool, scheduler
from benchmark.execution.messages import ClaimedElsewhere, PackFinished, WorkerReady
from benchmark.grid import planner
from benchmark.reporting.wandb import export
from benchmark.results.store import ResultStore
from benchmark.system.shutdown import REQUESTED_EXIT_CODES

WAYWARD = """
import os
from pathlib import Path
from methods.lora import LoRA

class Wayward(LoRA):
    name = "wayward"
    def training_step(self, batch, batch_idx):
        if not Path(os.environ["MENDED"]).exists():
            raise RuntimeError("on purpose")
        return super().training_step(batch, batch_idx)
"""


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("2d", 172_800)])
def test_a_time_is_a_number_and_a_unit(text: str, seconds: float):
    assert run_limits.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-3", "4 hours", "h", "nan"])
def test_what_is_no_time(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="not a duration above 0"):
        run_limits.parse_duration(text)


class Counts:
    """What a shop asks of a progress."""

    def __init__(self) -> None:
        self.num_failed, self.seen = 0, []

    def start_pack(self, pack) -> None: ...

    def finish_elsewhere(self, planned, result) -> None:
        self.seen.append(result.state)

    def release_cell(self, planned) -> None:
        self.seen.append("put back")

    def report_requeue(self, pack, reason) -> None:
        self.seen.append(reason)

    def finish_cell(self, planned, result) -> None:
        self.seen.append(result.state)


def opened(small: Profile, **given: object) -> scheduler.Scheduler:
    cells = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"][:3]
    return scheduler.Scheduler(
        [(cell,) for cell in cells], small, ResultStore(small.results_folder), Counts(), RunLimits(**given)
    )


def test_no_pack_begins_after_the_budget(small: Profile, monkeypatch: pytest.MonkeyPatch):
    place = opened(small, time_budget_seconds=60.0)
    assert place.take_pack()
    monkeypatch.setattr(scheduler, "monotonic", lambda: place.start_time + 61)
    assert place.take_pack() is None
    assert "budget" in place.stop_reason
    assert place.num_unfinished == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_was_lost_ends_the_run_at_the_next_pack(number, small: Profile):
    place = opened(small)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main([]) == 0
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            signal.raise_signal(number)
        with pytest.raises(SystemExit) as ended:
            place.take_pack()
        assert ended.value.code == 128 + number
    finally:
        REQUESTED_EXIT_CODES.clear()
        for one, handler in before.items():
            signal.signal(one, handler)


def test_no_pack_begins_after_a_failure_where_that_is_asked(small: Profile):
    for given, goes_on in (({}, True), ({"on_failure": "stop"}, False)):
        place = opened(small, **given)
        place.progress.num_failed = 1
        assert bool(place.take_pack()) is goes_on


def test_a_cell_that_failed_elsewhere_is_not_tried_again_here(small: Profile, fake):
    place = opened(small)
    pack = place.take_pack()
    fake(small, pack[0], error="no")
    place.complete_pack(pack, [ClaimedElsewhere()])
    assert place.num_unfinished == 2
    assert place.queue.failed_identities == {pack[0].identity}
    assert place.progress.seen == ["failed"]


def test_a_cell_that_another_process_has_comes_up_again(small: Profile):
    place = opened(small)
    pack = place.take_pack()
    place.complete_pack(pack, [ClaimedElsewhere()])
    assert place.num_unfinished == 3
    assert place.queue.pending_packs[-1] == pack


def test_a_worker_that_was_killed_while_it_had_no_pack_costs_nothing(small: Profile, fake, monkeypatch):
    """The first is gone when it should have the first pack; its place is taken."""
    place, hired = opened(small), []

    def serve(pipe: Connection) -> None:
        with suppress(EOFError):
            while True:
                pipe.send(PackFinished(tuple(fake(small, planned, 0.5) for planned in pipe.recv())))

    def hire(_: scheduler.Scheduler) -> process_pool.WorkerProcess:
        here, there = Pipe()
        there.send(WorkerReady())
        if hired:
            Thread(target=serve, args=(there,), daemon=True).start()
        else:
            there.close()
        hired.append(here)
        return process_pool.WorkerProcess(Mock(**{"is_alive.return_value": False}), here)

    monkeypatch.setattr(process_pool, "spawn_worker", hire)
    process_pool.run_in_worker_processes(place, 1)
    assert place.progress.seen == ["the worker exited before it received the pack", "done", "done", "done"]
    assert (len(hired), place.num_unfinished) == (2, 0)


@pytest.fixture
def wayward(small: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "wayward.py").write_text(WAYWARD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MENDED", str(tmp_path / "mended"))
    return ["--profile", "smoke", "--backbone", small.backbone.name, "--tasks", "chnsent", "--workers", "1",
            "--methods", "wayward:Wayward,zero_shot,lora", "--results", str(small.results_folder)]  # fmt: skip


def states(small: Profile) -> dict[str, str]:
    return {result.cell.method: result.state for result in ResultStore(small.results_folder).load_results()}


def test_a_run_stops_at_a_failure_and_what_failed_is_retried(small, wayward, tmp_path, capsys):
    assert main(["run", *wayward, "--on-failure", "stop"]) == 1
    assert "stopped: a cell failed" in capsys.readouterr().out
    before = states(small)
    assert before.pop("wayward:Wayward") == "failed"
    (tmp_path / "mended").touch()
    assert main(["retry", *wayward]) == 0
    assert states(small) == before | {"wayward:Wayward": "done"}
    assert main(["retry", *wayward]) == 0
    assert "nothing to retry" in capsys.readouterr().out


def test_a_run_without_time_says_what_is_left_and_retry_leaves_the_rest(small, wayward, capsys):
    assert main(["run", *wayward, "--budget", "0.001s"]) == 3
    assert "stopped: the budget" in capsys.readouterr().out
    assert states(small) == {}
    assert main(["run", *wayward, "--methods", "zero_shot"]) == 0
    assert main(["retry", *wayward, "--methods", "zero_shot", "--set", "limit.test=4", "--stale"]) == 0
    assert "retrying 1 stale cells" in capsys.readouterr().out


def test_retry_takes_what_a_cell_rests_on_along(heir: Profile, fake):
    from benchmark.cli.run import add_dependencies

    cells = planner.plan_grid(heir)
    child = next(cell for cell in reversed(cells) if len(cell.dependencies) == 1)
    found = add_dependencies(cells, [("planned", "")] * len(cells), {child.identity})
    assert child.dependencies[0] in found
    assert len(found) == 4  # itself, its stage, and the prompt of each of two sources


class Run:
    """Of W&B, as far as it is needed to break it off."""

    def __init__(self, folder: Path, name: str, broken: bool) -> None:
        self.summary, self.broken = {}, broken
        (folder / "wandb" / f"offline-run-20260101_000000-{name}").mkdir(parents=True, exist_ok=True)

    def log(self, *_: object, **__: object) -> None: ...

    def finish(self) -> None:
        if self.broken:
            raise OSError("network is unreachable")


def test_a_view_that_breaks_off_is_lost_and_written_once_the_next_time(small: Profile, fake, monkeypatch):
    cells = [cell for cell in planner.plan_grid(small) if cell.cell.task == "chnsent" and cell.cell.shots in (0, 4)]
    for planned in cells:
        fake(small, planned, 0.25)
    begun = []

    def start(folder: Path, mode: str, **named: object) -> Run:
        begun.append(named["id"])
        return Run(folder, named["id"], broken=len(begun) == 3)

    monkeypatch.setattr(export, "start_run", start)
    with pytest.raises(export.WandbExportError, match="OSError: network is unreachable"):
        export.export_results(small, "offline")
    export.export_results(small, "offline")
    assert len(begun) == len(cells) + 1 + 1  # one of them twice, and the summary
    assert len(list((small.results_folder / "wandb").iterdir())) == len(cells) + 1
