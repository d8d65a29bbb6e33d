"""Where a number was measured: versions, device, commit, memory, time by phase. No names of people or machines."""

import os
import platform
import resource
import subprocess
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from time import perf_counter
from typing import Any

PACKAGES = (
    "adapterbench", "torch", "lightning", "transformers", "tokenizers", "torchmetrics", "datasets", "numpy", "peft",
)  # fmt: skip
STOPPED: list[int] = []  # the exit code, once a signal asked for the end
SECRETS = {"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS"}  # words in the name of a variable
SECRET = 8  # characters: what is shorter is a word like any other
ROOT = Path(__file__).parent.parent
PEAK = Path("/proc/self/clear_refs")  # writing 5 forgets the highest memory so far (Linux)


class Clock:
    """Seconds by phase, and all seconds since it was made."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.start = perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        begin = perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += perf_counter() - begin

    @property
    def total(self) -> float:
        return perf_counter() - self.start


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def environment(device: str) -> dict[str, Any]:
    """Versions, device and code of this process."""
    return {
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        **commit(),
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {models[0] if models else platform.processor()}"


def commit() -> dict[str, Any]:
    """The commit of this code, where it runs from a checkout and git is there to be asked."""
    if not (ROOT / ".git").exists() or which("git") is None:
        return {"commit": None, "dirty": None}
    ask = ["git", "-C", str(ROOT)]
    head = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    status = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, check=False)
    found = head.stdout.strip() or None  # none where git refuses, as in a checkout that belongs to somebody else
    return {"commit": found, "dirty": bool(status.stdout.strip()) if found else None}


def forget_peak(device: str) -> None:
    """Start counting the highest memory anew."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif PEAK.exists():
        PEAK.write_text("5")


def peak(device: str) -> dict[str, Any]:
    """The highest memory since `forget_peak`: the device's, or this process's on a CPU."""
    if device.startswith("cuda"):
        import torch

        return {"peak_bytes": torch.cuda.max_memory_allocated(device), "peak_of": "device"}
    if PEAK.exists():
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return {"peak_bytes": int(line.split()[1]) * 1024, "peak_of": "process"}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_bytes": most * (1 if sys.platform == "darwin" else 1024), "peak_of": "process, since its start"}


def private(text: str, *, folders: bool = True) -> str:
    """A text without the secrets of the environment and, for what is kept, without this machine's folders."""
    for name, value in os.environ.items():
        if len(value) >= SECRET and set(name.upper().split("_")) & SECRETS:
            text = text.replace(value, f"<{name}>")
    for folder, name in ((ROOT, "."), (Path(sys.prefix), "<python>"), (Path.cwd(), "."), (Path.home(), "~")):
        if folders and len(str(folder)) > 1:
            text = text.replace(str(folder), name)
    return text


def failure(error: BaseException) -> dict[str, str]:
    """A reason in one line, and where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return {"reason": private(reason), "traceback": private("".join(traceback.format_exception(error)))}
