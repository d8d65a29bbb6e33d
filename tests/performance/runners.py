"""Runs both sides, each as its user would: the peer as a process per cell, the suite by its command line."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from time import perf_counter, sleep
from typing import Any

import yaml

from benchmark.config.profile import Profile
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from tests.performance.workload import Work

NAIVE = Path(__file__).parent / "naive.py"
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "120"}
PHASES = ("start", "load", "tokenise", "train", "test", "rest")  # `start`: processes, imports, plan and report
SCORING = ("train", "test")
Figures = dict[str, Any]


def peer(work: Work, scratch: Path, processes: int = 1) -> Figures:
    """Every cell in a process of its own, so many at a time, the longest first."""
    wanted = [(method, task, seed) for seed in work.seeds for task in work.tasks for method in work.methods]
    folder = scratch / "naive"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cells = [(key, work.cell(*key, scratch)) for key in wanted]
    cells.sort(key=lambda pair: -passes(pair[1]))
    found: dict[tuple, tuple[float, Figures]] = {}
    begin, waiting, running = perf_counter(), list(cells), {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                key, cell = waiting.pop(0)
                running[key] = (*launch(folder, key, cell), perf_counter())
            sleep(0.02)
            for key in [key for key, (process, *_) in running.items() if process.poll() is not None]:
                process, path, since = running.pop(key)
                if process.returncode:
                    raise RuntimeError(f"the peer failed on {key}: {path.with_suffix('.log').read_text()[-600:]}")
                found[key] = perf_counter() - since, json.loads(path.read_text())
    finally:
        for process, *_ in running.values():
            process.kill()
    return peer_figures(work, found, processes, perf_counter() - begin)


def passes(cell: Mapping[str, Any]) -> int:
    """Rows that a cell passes, roughly: training counts three times."""
    labels = max(len(row["choices"]) for row in cell["test"]) or cell["max_new_tokens"] // 8
    return 3 * cell["steps"] * cell["batch_size"] + labels * len(cell["test"])


def launch(folder: Path, key: tuple, cell: Mapping[str, Any]) -> tuple[subprocess.Popen, Path]:
    """Start one peer. -> the process, and where its result will be."""
    stem = folder / "-".join(map(str, key))
    given, result = stem.with_suffix(".cell"), stem.with_suffix(".json")
    given.write_text(json.dumps(cell, ensure_ascii=False))
    with stem.with_suffix(".log").open("w") as log:
        command = [sys.executable, str(NAIVE), str(given), str(result)]
        return subprocess.Popen(command, env=os.environ | QUIET, stdout=log, stderr=log), result


def peer_figures(work: Work, found: Mapping[tuple, tuple[float, Figures]], processes: int, wall: float) -> Figures:
    """Cells per hour as if the processes never waited for the last cell: in the peer's favour."""
    phases, scores = Counter(), defaultdict(list)
    for (method, task, seed), (seconds, said) in found.items():
        phases.update(said["seconds"] | {"start": seconds - sum(said["seconds"].values())})
        data = work.task(task, seed)
        given = {e.uid: text for e, text in zip(data.examples["test"], said["predictions"], strict=True)}
        scores[f"{method}/{task}"].append(data.score(given)[data.metric])
    total = sum(seconds for seconds, _ in found.values())
    return {
        **counted(work.methods, len(found), processes, wall, 3600 * processes * len(found) / total),
        "phases": shared(phases, len(found)),
        "scoring_share": sum(phases[name] for name in SCORING) / total,
        "padded_share": fmean(said["padded_share"] for _, said in found.values()),
        "peak_bytes": max(said["peak_bytes"] for _, said in found.values()),
        "scores": {name: fmean(values) for name, values in sorted(scores.items())},
        "each": {"/".join(map(str, key)): round(seconds, 2) for key, (seconds, _) in found.items()},
    }


# -------------------------------------------------------------------- the suite


def suite(work: Work, scratch: Path, *, pack: int | str = "auto", workers: int | str = "auto") -> Figures:
    """`python -m benchmark run` on a fresh folder, from start to finish: plan, cells and report."""
    folder = scratch / "suite"
    shutil.rmtree(folder, ignore_errors=True)
    profile = work.profile(scratch, pack=pack, workers=workers, results=str(folder))
    seconds = command(profile, scratch, "run")
    return suite_figures(profile, seconds)


def command(profile: Profile, scratch: Path, *verb: str) -> float:
    """Run a verb of the suite on this profile. -> seconds."""
    path = scratch / "bench.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(profile))), allow_unicode=True))
    begin = perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", "benchmark", *verb, "--profile", str(path)],
        env=os.environ | QUIET, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(
            f"benchmark {' '.join(verb)}: exit code {ran.returncode}: {(ran.stderr or ran.stdout)[-600:]}"
        )
    return perf_counter() - begin


def suite_figures(profile: Profile, wall: float) -> Figures:
    """What the results of a folder say, of a grid that took so long in all."""
    from benchmark.system import hardware

    results = [result for result in ResultStore(profile.results_folder).load_results() if result.is_done]
    phases, scores, packs, each = Counter(), defaultdict(list), Counter(), {}
    for result in results:
        spent = dict(result.costs.seconds_by_phase)
        phases.update(train=spent.pop("train", 0.0), test=spent.pop("test", 0.0) + spent.pop("dev", 0.0))
        phases.update(load=spent.pop("load", 0.0), tokenise=spent.pop("tokenise", 0.0), rest=sum(spent.values()))
        packs[result.costs.pack_size] += 1
        each[f"{result.cell.method}/{result.cell.task}/{result.cell.seed}"] = result.times.seconds
        if result.test_score is not None:
            scores[f"{result.cell.method}/{result.cell.task}"].append(result.test_score)
    processes = hardware.choose_num_workers(profile, round(sum(count / size for size, count in packs.items())))
    phases["start"] = max(0.0, wall * processes - phases.total())
    return {
        **counted(profile.methods, len(results), processes, wall, 3600 * len(results) / wall),
        "phases": shared(phases, len(results)),
        "scoring_share": sum(phases[name] for name in SCORING) / (wall * processes),
        "padded_share": padded(results),
        "peak_bytes": max(result.costs.peak_bytes for result in results),
        "scores": {name: fmean(values) for name, values in sorted(scores.items())},
        "packs": {str(size): count for size, count in sorted(packs.items())},
        "each": {key: round(seconds + phases["start"] / len(results), 2) for key, seconds in each.items()},
    }


def padded(results: Iterable[CellResult]) -> float | None:
    """Share of the trained tokens that are padding, over all cells."""
    costs = [result.costs for result in results if result.costs and result.costs.padded_share is not None]
    whole = sum(cost.num_tokens / (1 - cost.padded_share) for cost in costs)
    return 1 - sum(cost.num_tokens for cost in costs) / whole if whole else None


def counted(methods: Sequence[str], cells: int, processes: int, seconds: float, per_hour: float) -> Figures:
    counts = {"methods": methods, "cells": cells, "processes": processes}
    return counts | {"seconds": round(seconds, 2), "cells_per_hour": round(per_hour, 1)}


def shared(phases: Mapping[str, float], cells: int) -> dict[str, float]:
    """Seconds of a cell by phase."""
    return {name: round(phases.get(name, 0.0) / cells, 3) for name in PHASES}
