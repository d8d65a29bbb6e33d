"""TODO."""

import resource
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

CLEAR_REFS_FILE = Path("/proc/self/clear_refs")  # writing 5 forgets the highest memory so far (Linux)


class PhaseTimer:
    """Seconds by phase, and all seconds since it was made."""

    def __init__(self) -> None:
        self.seconds_by_phase: defaultdict[str, float] = defaultdict(float)
        self.start_time = perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        begin = perf_counter()
        try:
            yield
        finally:
            self.seconds_by_phase[phase] += perf_counter() - begin

    @property
    def total_seconds(self) -> float:
        return perf_counter() - self.start_time


def get_timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def reset_peak_memory(device: str) -> None:
    """Start counting the highest memory anew."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS_FILE.exists():
        CLEAR_REFS_FILE.write_text("5")


def measure_peak_memory(device: str) -> dict[str, Any]:
    """The highest memory since `forget_peak`: the device's, or this process's on a CPU."""
    if device.startswith("cuda"):
        import torch

        return {"peak_bytes": torch.cuda.max_memory_allocated(device), "peak_of": "device"}
    if CLEAR_REFS_FILE.exists():
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return {"peak_bytes": int(line.split()[1]) * 1024, "peak_of": "process"}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_bytes": most * (1 if sys.platform == "darwin" else 1024), "peak_of": "process, since its start"}
