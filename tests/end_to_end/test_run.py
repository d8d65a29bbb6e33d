"""Grids of a few cells, from records to leaderboard, on a random backbone."""

import gc
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from math import isclose
from pathlib import Path
from statistics import fmean

import pytest
import torch
from safetensors.torch import load

from benchmark.cli.main import main
from benchmark.config.profile import Profile
from benchmark.execution import process_pool, scheduler
from benchmark.execution.messages import ClaimedElsewhere
from benchmark.execution.record import build_result
from benchmark.grid import planner
from benchmark.results.store import ResultStore

ROOT = Path(__file__).parents[2]
BROKEN = """
import os, signal, time
from pathlib import Path
from methods.lora import LoRA

class Raises(LoRA):
    name = "raises"
    def training_step(self, batch, batch_idx):
        raise RuntimeError("on purpose")

class NoNumber(LoRA):
    name = "no_number"
    def compute_slot_losses(self, plan):
        return super().compute_slot_losses(plan) * float("nan")

class Dies(LoRA):
    name = "dies"
    def initialize_slot(self, generator, train_examples):
        if train_examples[0].example.task_name == "ocnli":
            os.kill(os.getpid(), signal.SIGKILL)
        super().initialize_slot(generator, train_examples)

class Picky(LoRA):
    name = "picky"
    def initialize_slot(self, generator, train_examples):
        if train_examples[0].example.task_name == "ocnli":
            raise RuntimeError("not this one")
        super().initialize_slot(generator, train_examples)

class Slow(LoRA):
    name = "slow"
    def training_step(self, batch, batch_idx):
        Path(__file__).with_name("begun").touch()
        time.sleep(600)
"""


@pytest.fixture
def words(small: Profile) -> list[str]:
    """A grid of two cells on a random backbone."""
    return ["--profile", "smoke", "--backbone", small.backbone.name, "--tasks", "cote_bd,ocnli", "--seeds", "0",
            "--results", str(small.results_folder), "--workers", "1"]  # fmt: skip


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def results(folder: Path) -> dict[str, dict]:
    return {result.key: result for result in ResultStore(folder).load_results()}


def test_a_grid_runs_and_running_again_does_nothing(small: Profile, words, capsys):
    assert main(["run", *words, "--methods", "lora"]) == 0
    assert "2 done, 0 failed" in capsys.readouterr().out
    found = results(small.results_folder)
    assert set(found) == {"lora/cote_bd/4/0", "lora/ocnli/4/0"}
    times = {path: path.stat().st_mtime_ns for path in (small.results_folder / "cells").iterdir()}
    assert main(["run", *words, "--methods", "lora"]) == 0
    assert "nothing is due" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in (small.results_folder / "cells").iterdir()}


def test_a_result_says_everything_the_protocol_asks_for(small: Profile, words):
    assert main(["run", *words, "--methods", "lora"]) == 0
    result = results(small.results_folder)["lora/ocnli/4/0"]
    assert result.is_done
    assert {"accuracy", "macro_f1"} <= set(result.metrics.test)
    assert set(result.costs.seconds_by_phase) == {"load", "tokenise", "train", "dev", "test", "save", "rest"}
    assert abs(sum(result.costs.seconds_by_phase.values()) - result.times.seconds) < 0.2
    assert result.costs.trained_parameters > 0
    assert result.costs.adapter_bytes == 4 * result.costs.trained_parameters
    assert 0 <= result.costs.padded_share < 1
    assert result.data["ocnli"].splits["test"] == 16
    assert result.details.environment.device.startswith("cpu: ")
    assert "torch" in result.details.environment.packages
    text = result.path.read_text()
    assert os.uname().nodename not in text
    assert str(Path.home()) + "/" not in text
    assert str(small.results_folder) not in text


def test_scores_can_be_recomputed_from_the_kept_predictions(small: Profile, words):
    import pyarrow.parquet

    assert main(["run", *words, "--methods", "lora"]) == 0
    for result in results(small.results_folder).values():  # a choice and a span
        found = pyarrow.parquet.read_table(small.results_folder / result.predictions.path)["score"].to_pylist()
        assert isclose(fmean(found), result.metrics.test[result.task.metric])
    result = results(small.results_folder)["lora/ocnli/4/0"]
    rows = pyarrow.parquet.read_table(small.results_folder / result.predictions.path).to_pylist()
    assert len(rows) == 16
    assert sum(row["correct"] for row in rows) / 16 == result.metrics.test["accuracy"]
    assert all(len(row["scores"]) == 3 for row in rows)
    assert len({row["asked"] for row in rows}) == 16


def test_a_cell_that_fails_is_recorded_and_the_grid_goes_on(small: Profile, words, broken, capsys):
    assert main(["run", *words, "--methods", "broken:Raises,broken:NoNumber,lora"]) == 1
    assert "2 done, 4 failed" in capsys.readouterr().out
    found = results(small.results_folder)
    error = found["broken:Raises/ocnli/4/0"].error
    assert error.reason == "RuntimeError: on purpose"
    assert "training_step" in error.traceback
    assert "step 1" in found["broken:NoNumber/ocnli/4/0"].error.reason
    assert found["lora/ocnli/4/0"].is_done


def test_a_grid_in_packs_gives_what_each_cell_gives_alone(small: Profile, words):
    """Cells of unequal texts, label words and steps, which stop early: answers, scores, curves and learned tensors."""
    import pyarrow.parquet

    more = ["--methods", "lora,prompt", "--tasks", "cote_bd,ocnli,chnsent", "--set", "keep_adapters=true",
            "--set", "lora.lr=0.01", "--set", "prompt.lr=0.5", "--set", "budget.epochs=5", "--set", "budget.max_steps=12",
            "--set", "budget.evaluations=6", "--set", "budget.patience=1"]  # fmt: skip
    found, states = {}, {}
    for pack in ("1", "3"):
        folder = small.results_folder / pack
        there = [str(folder) if word == str(small.results_folder) else word for word in words]
        assert main(["run", *there, *more, "--pack", pack]) == 0
        found[pack] = results(folder)
        place = ResultStore(folder)
        states[pack] = {key: load(place.get_adapter_path(r.identity).read_bytes()) for key, r in found[pack].items()}
    assert {result.costs.pack_size for result in found["1"].values()} == {1}
    assert max(result.costs.pack_size for result in found["3"].values()) == 3
    steps = {result.details.training.num_steps for result in found["1"].values()}
    assert len(steps) > 1
    assert any(result.details.training.stopped_step for result in found["1"].values())
    for key, solo in found["1"].items():
        packed = found["3"][key]
        assert packed.identity == solo.identity
        assert packed.metrics.dev == pytest.approx(solo.metrics.dev, abs=1e-6)
        assert packed.metrics.test == pytest.approx(solo.metrics.test, abs=1e-6)
        assert packed.details.training.best_step == solo.details.training.best_step
        assert packed.details.training.stopped_step == solo.details.training.stopped_step
        for (step, loss), (other, want) in zip(packed.details.training.loss, solo.details.training.loss, strict=True):
            assert (step, loss) == (other, pytest.approx(want, rel=1e-3))
        for name, tensor in states["1"][key].items():
            assert (states["3"][key][name] - tensor).norm() <= 1e-3 * tensor.norm() + 1e-6
        answers = [
            pyarrow.parquet.read_table(small.results_folder / pack / found[pack][key].predictions.path) for pack in "13"
        ]
        assert answers[0]["predicted"] == answers[1]["predicted"]


def test_only_the_guilty_cell_of_a_pack_fails(small: Profile, words, broken, capsys):
    assert main(["run", *words, "--methods", "broken:Picky", "--tasks", "cote_bd,ocnli,chnsent", "--pack", "3"]) == 1
    assert "2 done, 1 failed" in capsys.readouterr().out
    found = results(small.results_folder)
    assert found["broken:Picky/ocnli/4/0"].error.reason == "RuntimeError: not this one"
    assert found["broken:Picky/chnsent/4/0"].costs.unpacked_reason == "RuntimeError: not this one"
    assert found["broken:Picky/chnsent/4/0"].costs.pack_size == 1


def test_a_pack_is_resumed_without_the_cells_that_are_done(small: Profile, words, capsys):
    assert main(["run", *words, "--methods", "lora", "--tasks", "ocnli", "--pack", "3"]) == 0
    before = (small.results_folder / "cells").iterdir().__next__()
    stamp = before.stat().st_mtime_ns
    capsys.readouterr()
    assert main(["run", *words, "--methods", "lora", "--tasks", "cote_bd,ocnli,chnsent", "--pack", "3"]) == 0
    assert "2 done, 0 failed, 1 cached" in capsys.readouterr().out
    assert before.stat().st_mtime_ns == stamp


class Runs:
    """A bench that only notes which cells it was asked to run."""

    def __init__(self, profile: Profile, store: ResultStore) -> None:
        self.profile, self.store, self.asked = profile, store, []

    def run(self, pack):
        self.asked.append(list(pack))
        return [build_result(planned, self.profile) for planned in pack]


def test_what_a_cell_learned_is_gone_when_the_next_begins(small: Profile, monkeypatch: pytest.MonkeyPatch):
    """Though nobody else looks for what is only held in circles."""
    from benchmark.execution import cell_runner
    from methods.core.slot_parameters import SlotParameter

    def banks() -> int:
        return sum(isinstance(one, SlotParameter) for one in gc.get_objects() if issubclass(type(one), torch.nn.Module))

    monkeypatch.setattr(cell_runner, "GC_INTERVAL_FACTOR", 0)
    bench = cell_runner.CellRunner(small, ResultStore(small.results_folder))
    cells = [cell for cell in planner.plan_grid(small) if cell.cell.method == "prompt"][:3]
    gc.collect()
    gc.disable()
    try:
        before, after = banks(), []
        for cell in cells:
            bench.run([cell])
            after.append(banks() - before)
        bench.collect_garbage()
        assert after[0] > 0
        assert after == after[:1] * 3
        assert banks() == before
    finally:
        gc.enable()


def test_cells_that_another_process_has_or_did_are_left_out_of_a_pack(small: Profile, fake):
    pack = tuple(cell for cell in planner.plan_grid(small) if cell.cell.method == "lora")[:3]
    bench = Runs(small, ResultStore(small.results_folder))
    fake(small, pack[1], 0.5)
    with ResultStore(small.results_folder).lock_cells(pack[:1]):
        outcomes = process_pool.run_unclaimed_cells(bench, pack)
        assert outcomes[:2] == [ClaimedElsewhere()] * 2
        assert outcomes[2].cell == pack[2].cell
        assert process_pool.run_unclaimed_cells(bench, pack[:2]) == [ClaimedElsewhere()] * 2
    assert bench.asked == [[pack[2]]]
    assert process_pool.run_unclaimed_cells(bench, pack)[0].cell == pack[0].cell


def test_missing_cells_are_all_that_a_second_run_does(small: Profile, words, capsys):
    assert main(["run", *words, "--methods", "zero_shot"]) == 0
    capsys.readouterr()
    assert main(["run", *words, "--methods", "zero_shot,majority"]) == 0
    assert "2 done, 0 failed, 2 cached" in capsys.readouterr().out


def test_stages_run_as_parents_whose_adapters_their_targets_load(heir: Profile):
    chosen = replace(heir, tasks=("ocnli",), seeds=(0,))
    cells = planner.plan_grid(chosen)
    assert [c.cell.stage for c in cells] == ["target", "target", "source", "target"]
    from benchmark.execution.cell_runner import CellRunner

    place = ResultStore(chosen.results_folder)
    bench = CellRunner(chosen, place)
    for planned in cells:
        (result,) = bench.run([planned])
        assert result.error is None, result.error.traceback
        assert place.is_done(planned)
    assert set(result.metrics.zero_step) == set(result.metrics.test) > {"accuracy"}
    assert len(list((chosen.results_folder / "adapters").iterdir())) == 3


def test_a_cell_whose_parent_failed_is_not_tried(heir: Profile):
    cells = planner.plan_grid(replace(heir, tasks=("ocnli",), seeds=(0,)))
    queue = scheduler.PackQueue([(cell,) for cell in cells])
    assert queue.pop_ready_pack() == (cells[0],)
    assert queue.pop_ready_pack() == (cells[1],)
    assert queue.pop_ready_pack() is None  # the rest waits for both
    queue.mark_finished(cells[0], has_failed=True)
    queue.mark_finished(cells[1], has_failed=False)
    assert queue.pop_ready_pack() == (cells[2],)
    assert queue.has_failed_dependency(cells[2])


def test_workers_share_a_grid_and_a_dead_one_costs_its_cell(small: Profile, words, broken):
    """The other cell of its pack is tried again, alone."""
    there = [*words[:-1], "2", "--pack", "2", "--methods", "broken:Dies,lora"]
    said = subprocess.run([sys.executable, "-m", "benchmark", "run", *there], capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 1, said.stderr
    found = results(small.results_folder)
    assert {key: result.state for key, result in found.items()} == {
        "broken:Dies/cote_bd/4/0": "done", "broken:Dies/ocnli/4/0": "failed",
        "lora/cote_bd/4/0": "done", "lora/ocnli/4/0": "done",
    }  # fmt: skip
    assert [found[f"{method}/cote_bd/4/0"].costs.pack_size for method in ("broken:Dies", "lora")] == [1, 2]
    assert "SIGKILL" in found["broken:Dies/ocnli/4/0"].error.reason
    assert not list((small.results_folder / "locks").iterdir())
    here = [str(small.results_folder / "here") if word == str(small.results_folder) else word for word in words]
    assert main(["run", *here, "--pack", "2", "--methods", "lora"]) == 0
    for key, result in results(small.results_folder / "here").items():  # one process or several: bit by bit the same
        assert result.predictions.sha256 == found[key].predictions.sha256


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_grid_keeps_what_is_finished(number, code, small: Profile, words, broken):
    there = ["run", *words, "--methods", "zero_shot,broken:Slow"]
    process = subprocess.Popen([sys.executable, "-m", "benchmark", *there], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, cwd=ROOT)  # fmt: skip
    while not (broken / "begun").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == code, said
    assert said.splitlines()[-1].startswith("interrupted")
    assert {result.key for result in results(small.results_folder).values()} == {
        "zero_shot/cote_bd/0/0",
        "zero_shot/ocnli/0/0",
    }
    assert not list((small.results_folder / "locks").iterdir())
