"""Log of predicted and actual run times of a results folder; shows how reliable the time estimate is."""

import json
from pathlib import Path
from typing import Any

from benchmark.system.formatting import format_duration
from benchmark.system.resources import get_timestamp


def append_run(
    folder: Path, num_cells: int, num_processes: int, expected_seconds: float, elapsed_seconds: float
) -> None:
    """Append a finished run to `runs.jsonl`. All times are wall-clock seconds."""
    run = {
        "finished": get_timestamp(),
        "cells": num_cells,
        "processes": num_processes,
        "expected": round(expected_seconds, 1),
        "took": round(elapsed_seconds, 1),
    }
    with (folder / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def load_last_run(folder: Path) -> dict[str, Any] | None:
    """Return the last finished run, or None; lines that a crash left incomplete are skipped."""
    path = folder / "runs.jsonl"
    if not path.is_file():
        return None
    for line in reversed(path.read_text(encoding="utf-8").splitlines()):
        try:
            run = json.loads(line)
            if run["took"] > 0 and run["expected"] > 0:
                return run
        except (ValueError, KeyError, TypeError):
            continue
    return None


def format_estimate_error(folder: Path) -> str:
    """Return, for example, `the last run took 3 min for 96 cells, 8 % less than planned`; empty without a run."""
    run = load_last_run(folder)
    if not run:
        return ""
    error = run["took"] / run["expected"] - 1
    if abs(error) < 0.005:
        comparison = "as planned"
    else:
        comparison = f"{100 * abs(error):.0f} % {'more' if error > 0 else 'less'} than planned"
    return f"the last run took {format_duration(run['took'])} for {run['cells']} cells, {comparison}"
