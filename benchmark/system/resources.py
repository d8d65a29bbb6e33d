"""Measurement of time by phase and of peak memory."""

import resource
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

CLEAR_REFS_FILE = Path("/proc/self/clear_refs")  # writing 5 resets the peak memory of the process (Linux)


class PhaseTimer:
    """Measures seconds by phase, `with timer("train"):`, and the total since its creation."""

    def __init__(self) -> None:
        """Start the total time."""
        self.seconds_by_phase: defaultdict[str, float] = defaultdict(float)
        self.start_time = perf_counter()
        self.started_at = get_timestamp()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the duration of the block to the seconds of `phase`."""
        start_time = perf_counter()
        try:
            yield
        finally:
            self.seconds_by_phase[phase] += perf_counter() - start_time

    @property
    def total_seconds(self) -> float:
        """Seconds since the timer was created."""
        return perf_counter() - self.start_time


def get_timestamp() -> str:
    """Current UTC time in ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def reset_peak_memory(device: str) -> None:
    """Reset the peak memory of the device, or of this process where the operating system allows it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS_FILE.exists():
        CLEAR_REFS_FILE.write_text("5")


class PeakMemory(NamedTuple):
    """Peak memory in bytes, and what it was measured on: the device, or the whole process."""

    num_bytes: int
    measured_on: str


def measure_peak_memory(device: str) -> PeakMemory:
    """Return the peak memory since `reset_peak_memory`."""
    if device.startswith("cuda"):
        import torch

        return PeakMemory(torch.cuda.max_memory_allocated(device), "device")
    if CLEAR_REFS_FILE.exists():
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return PeakMemory(int(line.split()[1]) * 1024, "process")
    max_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return PeakMemory(max_rss * unit_bytes, "process, since its start")
