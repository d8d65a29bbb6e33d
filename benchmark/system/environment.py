"""Where a number was measured: versions, device, commit, memory, time by phase. No names of people or machines."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Any

REPORTED_PACKAGES = (
    "adapterbench", "torch", "lightning", "transformers", "tokenizers", "torchmetrics", "datasets", "numpy", "peft",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


@cache
def collect_environment(device: str) -> dict[str, Any]:
    """Versions, device and code of this process."""
    return {
        "packages": {name: found for name in REPORTED_PACKAGES if (found := get_installed_version(name))},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": get_device_name(device),
        **get_git_commit(),
    }


def get_installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def get_device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {models[0] if models else platform.processor()}"


def get_git_commit() -> dict[str, Any]:
    """The commit of this code, where it runs from a checkout and git is there to be asked."""
    if not (ROOT / ".git").exists() or which("git") is None:
        return {"commit": None, "dirty": None}
    ask = ["git", "-C", str(ROOT)]
    head = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    status = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, check=False)
    found = head.stdout.strip() or None  # none where git refuses, as in a checkout that belongs to somebody else
    return {"commit": found, "dirty": bool(status.stdout.strip()) if found else None}
