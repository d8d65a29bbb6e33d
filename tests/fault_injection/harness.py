"""A small grid that can be run many times in a process of its own, and what is compared afterwards.

Each run is a fork of this process, which has imported everything: a run takes as long as its cells.
"""

import csv
import io
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp

import pyarrow.parquet

from benchmark.analysis import load, significance
from benchmark.analysis.leaderboard import build_leaderboard
from benchmark.cli.main import main
from benchmark.config.profile import Profile
from benchmark.reporting import build, tables
from benchmark.results.files import read_result_file, write_file_atomically
from benchmark.results.store import ResultStore
from benchmark.system.shutdown import REQUESTED_EXIT_CODES
from methods.conformance.tiny_models import save_random_model

# what a run imports when it needs it, imported once
ONCE = ("benchmark.execution.cell_runner", "benchmark.cli.run", "benchmark.scheduling.cost_model", "tasks.core.metrics", "methods.shared_lora", "pandas",
        "methods.baselines", "tasks.sentiment", "tasks.paraphrase", "scipy.stats")  # fmt: skip
METHODS = ("zero_shot", "lora", "shared_lora")
TIMES = {"seconds", "peak_bytes", "seconds_per_cell", "seconds_amortised", "seconds_in_full"}  # columns
COLUMNS = ["uid", "asked", "target", "predicted", "correct", "score"]  # of predictions
PATIENCE = 300.0  # seconds for a run that should end by itself
FAULTY = '''
"""Methods that fail for as long as the file FAULT is there."""
import os, time
from pathlib import Path
import torch
from methods.lora import LoRA

FAULT, HOARD = Path(os.environ["FAULT"]), []

class Raises(LoRA):
    name = "raises"
    def training_step(self, batch, batch_idx):
        if FAULT.exists():
            raise RuntimeError("on purpose")
        return super().training_step(batch, batch_idx)

class NoNumber(LoRA):
    name = "no_number"
    def compute_slot_losses(self, plan):
        return super().compute_slot_losses(plan) * (float("nan") if FAULT.exists() else 1.0)

class Hangs(LoRA):
    name = "hangs"
    def training_step(self, batch, batch_idx):
        while FAULT.exists():
            time.sleep(0.1)
        return super().training_step(batch, batch_idx)

class Leaks(LoRA):
    name = "leaks"
    def training_step(self, batch, batch_idx):
        while FAULT.exists():
            HOARD.append(torch.ones(2**24))
        return super().training_step(batch, batch_idx)

class NoRoom(LoRA):
    name = "no_room"
    def training_step(self, batch, batch_idx):
        if FAULT.exists():
            raise torch.OutOfMemoryError("on purpose")
        return super().training_step(batch, batch_idx)
'''


class Ground:
    """Where a grid is run and disturbed; `methods` beside those of every grid."""

    def __init__(self, home: Path, *, seeds: int = 2) -> None:
        self.home, self.seeds, self.count = home, seeds, 0
        self.model, self.fault = home / "model", home / "fault"
        os.environ |= {"FAULT": str(self.fault), "ADAPTERBENCH_CACHE": str(home / "cache"), "PYTHONPATH": str(home)}
        save_random_model(self.model, "qwen3")
        (home / "faulty.py").write_text(FAULTY)
        sys.path.insert(0, str(home))
        for name in ONCE:
            import_module(name)

    def folder(self) -> Path:
        """A new results folder."""
        self.count += 1
        return self.home / f"results-{self.count}"

    def words(self, folder: Path, *more: str, methods: Sequence[str] = METHODS, verb: str = "run") -> list[str]:
        seeds = ",".join(map(str, range(self.seeds)))
        return [verb, "--profile", "smoke", "--backbone", str(self.model), "--methods", ",".join(methods),
                "--tasks", "chnsent,lcqmc", "--seeds", seeds, "--results", str(folder), "--set", "sources=[afqmc, bq]",
                *(["--workers", "1", "--pack", "1"] if verb in ("run", "retry") and "--workers" not in more else []),
                *more]  # fmt: skip

    # ---------------------------------------------------------------- runs

    def start(self, words: Sequence[str], before: Callable[[], object] | None = None) -> int:
        """Begin a run in a process of its own, after `before` there. -> its id"""
        sys.stdout.flush()
        sys.stderr.flush()
        if process := os.fork():
            return process
        code = 70
        try:
            os.setsid()
            log = os.open(self.home / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            REQUESTED_EXIT_CODES.clear()
            count_writes(self.home / "writes")
            build.build_report = numbers
            if before:
                before()
            code = main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 71
        except BaseException:  # the child must never go on as if it were the campaign
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def wait(self, process: int, limit: float = PATIENCE) -> int:
        """The exit code; minus the signal for one that died by it; it is killed when it takes too long."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return -99

    def run(self, folder: Path, *more: str, before: Callable[[], object] | None = None, **options: object) -> int:
        return self.wait(self.start(self.words(folder, *more, **options), before))

    # ---------------------------------------------------------------- what is compared

    def said(self) -> str:
        """What the runs printed since this was last asked."""
        path = self.home / "log"
        text = path.read_text(errors="replace") if path.exists() else ""
        path.write_text("")
        return text

    def written(self) -> Counter:
        """(folder, cell) -> how often a result that is done was written."""
        path = self.home / "writes"
        return Counter(path.read_text().splitlines()) if path.exists() else Counter()

    def twice(self, folder: Path) -> int:
        """Cells of a folder that were done more than once."""
        return sum(count > 1 for line, count in self.written().items() if line.startswith(f"{folder.name} "))


def count_writes(path: Path) -> None:
    """Note every result that is done, whichever process writes it."""
    right = ResultStore.save_result

    def save(self: ResultStore, planned, result) -> None:
        right(self, planned, result)
        if result.is_done:
            with path.open("a") as file:
                file.write(f"{self.folder.name} {planned.file_stem}\n")

    ResultStore.save_result = save


def numbers(profile: Profile, console: object, loaded_results: object = None) -> Path:
    """The report less its pictures, which take longer than the grid."""
    _, results, _ = load.collect_results(profile, ResultStore(profile.results_folder))
    table = build_leaderboard(profile, results)
    folder = profile.results_folder / "report"
    write_file_atomically(
        folder / "leaderboard.csv",
        tables.format_scores_csv(table, significance.compute_significance(table, results)).encode(),
    )
    write_file_atomically(folder / "cells.csv", tables.format_cells_csv(results).encode())
    return folder


def done(folder: Path) -> dict[str, str]:
    """File -> content of the results that are done."""
    cells = folder / "cells"
    found = {path.name: path for path in cells.glob("*.json")} if cells.is_dir() else {}
    whole = {name: read_result_file(path) for name, path in found.items()}
    return {name: found[name].read_text() for name, result in whole.items() if result and result["state"] == "done"}


def build_tables(folder: Path, methods: Sequence[str] = METHODS) -> str:
    """The tables of a folder without their times, and every prediction."""
    lines = [plain((folder / "report" / name).read_text(), methods) for name in ("leaderboard.csv", "cells.csv")]
    for result in sorted(ResultStore(folder).load_results(), key=lambda result: result.key):
        if result.is_done and result.predictions and result.cell.method in methods:
            rows = pyarrow.parquet.read_table(folder / result.predictions.path, columns=COLUMNS).to_pylist()
            lines += [result.key, repr(rows), repr(result.metrics), repr(result.details.training.loss)]
    return "\n".join(lines)


def plain(text: str, methods: Sequence[str]) -> str:
    header, *rows = csv.reader(io.StringIO(text))
    kept = [place for place, name in enumerate(header) if name not in TIMES]
    own = [row for row in rows if row[header.index("method")] in methods]
    return "\n".join("\t".join(row[place] for place in kept) for row in [header, *own])


def home() -> Path:
    return Path(mkdtemp(prefix="faults-"))
