"""How long a run may go on, after how much time and after what; and limits as one types them."""

import argparse
import re
from typing import NamedTuple

SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class RunLimits(NamedTuple):
    """No pack begins once a cell failed (`stop`), or once `budget` seconds are over; a cell has `timeout` seconds."""

    on_failure: str = "go"
    time_budget_seconds: float | None = None
    cell_timeout_seconds: float | None = None


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `15m`, `4h`, `1.5h`, `2d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time above 0; write 90s, 15m, 4h or 2d")
    return float(found[1]) * SECONDS_PER_UNIT[found[2]]


def parse_size(text: str) -> float:
    """Bytes of `800MB`, `8GB`, `1.5g`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt])i?b?", text.strip().lower())
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size above 0; write 800MB or 8GB")
    return float(found[1]) * 1024 ** ("kmgt".index(found[2]) + 1)


def build_run_limits(arguments: argparse.Namespace) -> RunLimits:
    return RunLimits(arguments.on_failure, arguments.budget, arguments.timeout)
