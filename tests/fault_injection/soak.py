"""`python -m tests.fault_injection.soak`: many small cells in one process, and whether memory, open files or threads grow.

A sample after every few cells. The first half warms up: caches fill, the allocator finds its size. Over the second half
a straight line is laid through the samples, without the largest step: a table that doubles does so once, and what grows
comes again and again. Growth is the line's slope. Nothing may grow, whatever the number of cells.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory
from typing import NamedTuple

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from rich.box import SIMPLE_HEAD  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmark.config import loading
from benchmark.config.profile import Profile  # noqa: E402
from benchmark.execution import process_pool
from benchmark.execution.progress import Progress  # noqa: E402
from benchmark.grid import planner  # noqa: E402
from benchmark.grid.cells import PlannedCell  # noqa: E402
from benchmark.results.store import ResultStore  # noqa: E402
from methods.conformance.tiny_models import save_random_model  # noqa: E402

METHODS, TASKS = ("lora", "prompt", "bitfit", "adapter"), ("chnsent", "lcqmc")
SAMPLES = 100
NOISE = {"memory": 4 * 2**20, "files": 0.6, "threads": 0.6}  # of a sample's fields, over the second half


class Sample(NamedTuple):
    """After so many cells."""

    cells: int
    memory: int  # bytes of the process that are in memory
    files: int
    threads: int

    @classmethod
    def now(cls, cells: int) -> "Sample":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        counts = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
        return cls(cells, pages * resource.getpagesize(), *counts)


class Sampled(Progress):
    """Says nothing, and takes a sample after every few cells."""

    every, samples = 1, ()

    def print_line(self, text: str, style: str) -> None: ...

    def finish_cell(self, planned: PlannedCell, result: dict) -> None:
        super().finish_cell(planned, result)
        if (self.num_done + self.num_failed) % self.every == 0:
            self.samples = (*self.samples, Sample.now(self.num_done + self.num_failed))


def soaked(cells: int, place: Path) -> tuple[list[Sample], int]:
    """Run so many cells in this process. -> samples, and how many cells failed"""
    due = planner.plan_grid(small(cells, place))[:cells]
    found, price = small(cells, place), {planned.identity: 1.0 for planned in due}
    with Sampled(due, 0, price, 1, Console(quiet=True)) as progress:
        progress.every = max(1, cells // SAMPLES)
        process_pool.run_packs(found, [(planned,) for planned in due], ResultStore(found.results_folder), progress, 1)
    return list(progress.samples), progress.num_failed


def small(cells: int, place: Path) -> Profile:
    """One step and a few test examples each, on a random backbone of two layers."""
    if not (place / "model").exists():
        save_random_model(place / "model", "qwen3")
    seeds = list(range(-(-cells // (len(METHODS) * len(TASKS)))))
    return loading.load_profile("smoke", {
        "backbone": {"name": str(place / "model"), "device": "cpu"}, "methods": METHODS, "tasks": TASKS, "seeds": seeds,
        "budget": {"batch_size": 2, "epochs": 1, "max_steps": 1, "evaluations": 1}, "max_length": 120, "pack": 1,
        "limit": {"train": 16, "dev": 2, "test": 4}, "results": str(place / "results"),
    })  # fmt: skip


def growth(samples: Sequence[Sample], name: str) -> float:
    """What a straight line through the second half of the samples gains over it, less their largest step."""
    cells, values = zip(*((one.cells, getattr(one, name)) for one in samples[len(samples) // 2 :]), strict=True)
    steps = [after - before for before, after in pairwise(values)]
    steps[steps.index(max(steps))] = 0
    slope, _ = linear_regression(cells, [0, *accumulate(steps)])
    return slope * (cells[-1] - cells[0])


def grown(samples: Sequence[Sample]) -> dict[str, float]:
    """What grows more than it may."""
    return {name: value for name in NOISE if (value := growth(samples, name)) > NOISE[name]}


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.fault_injection.soak", description=__doc__)
    asked.add_argument("--cells", type=int, default=1000)
    options, begun = asked.parse_args(), time.monotonic()
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="soak-") as folder:
        samples, failed = soaked(options.cells, Path(folder))
    table = Table("", "half way", "at the end", "growth", "verdict", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    bad, middle, last = grown(samples), samples[len(samples) // 2]._asdict(), samples[-1]._asdict()
    for name in NOISE:
        unit, word = (2**20, " MiB") if name == "memory" else (1, "")
        spoken = [f"{value / unit:.1f}{word}" for value in (middle[name], last[name], growth(samples, name))]
        table.add_row(name, *spoken, "grows" if name in bad else "does not grow")
    say = Console(width=100, highlight=False)
    say.print(table)
    say.print(f"{options.cells} cells, {failed} failed, {time.monotonic() - begun:.0f} s; growth over the second half")
    return 1 if bad or failed else 0


if __name__ == "__main__":
    sys.exit(main())
