"""How long a plan takes, and a folder of thousands of finished cells to be found finished: simulated results."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any
from unittest.mock import patch

from benchmark.config import loading
from benchmark.config.profile import Profile
from benchmark.execution.record import build_result
from benchmark.grid import planner
from benchmark.grid.cells import PlannedCell
from benchmark.results.schema import Costs, CurvePoint, DataRecord, DevScore, FileRecord, Metrics, TrainingRecord
from benchmark.results.store import ResultStore
from benchmark.system.environment import collect_environment
from tests.performance.runners import command

METHODS = ("full", "bitfit", "adapter", "lora", "prompt")
ROWS = 240  # of a test set
POINTS = 60  # of a learning curve


def many(cells: int, folder: Path) -> Profile:
    """A grid of so many cells: five methods on all tasks, and as many seeds as that takes."""
    seeds = -(-cells // (len(METHODS) * len(Profile().tasks)))
    return loading.load_profile("demo", {"methods": METHODS, "seeds": list(range(seeds)), "results": str(folder)})


def resume(cells: int, scratch: Path, *, report: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Seconds of the verbs on a grid of so many cells, empty and finished."""
    folder = scratch / f"cells-{cells}"
    shutil.rmtree(folder, ignore_errors=True)
    found = many(cells, folder)
    first = command(found, scratch, "plan")  # finds out about methods and records, which the cache has afterwards
    seconds = {"first plan": first, "plan, nothing done": command(found, scratch, "plan")}
    yield f"plan of {cells} cells: {seconds['plan, nothing done']:.2f} s", {"cells": cells, "seconds": seconds}
    finish(found, planner.plan_grid(found))
    verbs = {
        "finished, first look": ("run", "--dry"),  # no index yet: every file is read
        "finished, resume": ("run", "--dry"),
    } | ({"finished, resume and report": ("run",)} if report else {})
    for name, verb in verbs.items():
        seconds[name] = command(found, scratch, *verb)
        yield f"{cells} cells, {name}: {seconds[name]:.2f} s", {"cells": cells, "seconds": seconds}
    shutil.rmtree(folder)


def finish(found: Profile, cells: Sequence[PlannedCell]) -> None:
    """A result for every cell as a run leaves it, without waiting for the disk; predictions are shared by link."""
    store = ResultStore(found.results_folder)
    rng = Random(0)
    training = TrainingRecord(
        num_steps=POINTS, num_gradients=POINTS, best_step=POINTS, stopped_step=0, diagnostics={},
        loss=tuple(CurvePoint(step, 1 / step) for step in range(1, POINTS + 1)),
        dev=(DevScore(20, 0.5, 1.0), DevScore(40, 0.6, 0.9), DevScore(60, 0.7, 0.8)),
    )  # fmt: skip
    costs = Costs(
        trained_parameters=28672, adapter_bytes=114688, pack_size=1, num_micro_batches=1, num_tokens=10**5,
        seconds_by_phase={"train": 3.0, "test": 1.0, "rest": 1.0}, tokens_per_second=3e4, padded_share=0.08,
        peak_bytes=7 * 10**8, peak_measured_on="process",
    )  # fmt: skip
    splits = {"train": 32, "dev": 32, "test": ROWS}
    data = DataRecord(splits, offered={}, truncated={}, short={}, origin="sample", digests={}, leaked={})
    environment = collect_environment("cpu")
    kept: dict[tuple[str, int], FileRecord] = {}
    for planned in cells:
        result = build_result(planned, found, training=training, environment=environment)
        correct, path = rng.randrange(8), store.get_predictions_path(planned)  # one of eight sets of predictions
        columns, shared = answers(planned, correct), (planned.cell.task, correct)
        with patch("os.fsync"):
            if shared not in kept:
                kept[shared] = store.save_predictions(planned, columns)
            else:
                os.link(store.folder / kept[shared].path, path)
            result = replace(
                result,
                times=replace(result.times, seconds=5.0),
                metrics=Metrics({result.task.metric: fmean(columns["score"])}, {planned.cell.task: 0.8}, {}),
                data={planned.cell.task: data},
                costs=costs,
                predictions=replace(kept[shared], path=path.relative_to(store.folder).as_posix()),
            )
            store.save_result(planned, result)


def answers(planned: PlannedCell, correct: int) -> dict[str, list]:
    """A test set's columns, with one in eight more right for each number."""
    score = [float(row % 8 <= correct) for row in range(ROWS)]
    uid = [f"{planned.cell.task}:{row}" for row in range(ROWS)]
    return {"uid": uid, "group": [""] * ROWS, "asked": uid, "score": score}
