"""Limits of a run (time budget, timeout, behaviour on failure), and parsing of durations and sizes."""

import argparse
import re
from typing import NamedTuple

SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class RunLimits(NamedTuple):
    """When a run starts no more cells, and when a cell is aborted."""

    on_failure: str = "go"  # "stop": start no pack after a cell has failed
    time_budget_seconds: float | None = None  # start no pack after this wall-clock time
    cell_timeout_seconds: float | None = None  # a cell that takes longer fails


def parse_duration(text: str) -> float:
    """Parse `90`, `90s`, `15m`, `1.5h` or `2d` to seconds; raises ArgumentTypeError unless it is above 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration above 0; write 90s, 15m, 4h or 2d")
    return float(match[1]) * SECONDS_PER_UNIT[match[2]]


def parse_size(text: str) -> float:
    """Parse `800MB`, `8GB` or `1.5g` to bytes (1 GB = 2**30); raises ArgumentTypeError unless it is above 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt])i?b?", text.strip().lower())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size above 0; write 800MB or 8GB")
    return float(match[1]) * 1024 ** ("kmgt".index(match[2]) + 1)


def build_run_limits(arguments: argparse.Namespace) -> RunLimits:
    """Collect the limits from the command line."""
    return RunLimits(arguments.on_failure, arguments.budget, arguments.timeout)
