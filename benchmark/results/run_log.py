"""How long runs of a folder were expected to take, and took: what the next plan is to be believed."""

import json
from pathlib import Path
from typing import Any

from benchmark.system.formatting import format_duration
from benchmark.system.resources import get_timestamp


def append_run(
    folder: Path, num_cells: int, num_processes: int, expected_seconds: float, elapsed_seconds: float
) -> None:
    """One line more, of a run that came to its end. Seconds of wall clock."""
    said = {
        "finished": get_timestamp(),
        "cells": num_cells,
        "processes": num_processes,
        "expected": round(expected_seconds, 1),
    }
    with (folder / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(said | {"took": round(elapsed_seconds, 1)}) + "\n")


def load_last_run(folder: Path) -> dict[str, Any] | None:
    """The last run that came to its end; a line that a crash tore does not count."""
    path = folder / "runs.jsonl"
    for line in reversed(path.read_text(encoding="utf-8").splitlines() if path.is_file() else []):
        try:
            said = json.loads(line)
            if said["took"] > 0 and said["expected"] > 0:
                return said
        except (ValueError, KeyError, TypeError):
            continue
    return None


def format_estimate_error(folder: Path) -> str:
    """`the last run took 3 min for 96 cells, 8 % less than planned`, or nothing."""
    said = load_last_run(folder)
    if not said:
        return ""
    off = said["took"] / said["expected"] - 1
    beside = "as planned" if abs(off) < 0.005 else f"{abs(off):.0%} {'more' if off > 0 else 'less'} than planned"
    return f"the last run took {format_duration(said['took'])} for {said['cells']} cells, {beside}".replace("%", " %")
